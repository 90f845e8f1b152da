//! A Kubernetes cluster as the source of the mesh's configuration.
//!
//! [`watch`] follows every kind that is translated, and gives what they mean as `mesh_config` says it: by the same code, and
//! with the same findings, as for a directory of manifests.
#![forbid(unsafe_code)]

mod client;
mod deletion;
mod events;
mod kind_watch;
mod named_watch;
mod read;
mod source;

pub use client::{ClientError, client};
pub use deletion::{daemon_set_deleted, daemon_set_stays};
pub use events::{About, Events, Occurrence};
pub use named_watch::{NamedChange, follow_named};
pub use read::{ReadError, read};
pub use source::watch;
