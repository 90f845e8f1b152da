//! A node: namespaces, mounts and programs that make it look like a machine to what runs there.

mod config;
mod init;
mod mounts;
mod runtime;
mod start;

pub(crate) use config::PAUSE as PAUSE_IMAGE;
pub use init::init;
pub(crate) use runtime::{Runtime, SOCKET as CONTAINERD_SOCKET};
pub use start::enter;
pub(crate) use start::start;
