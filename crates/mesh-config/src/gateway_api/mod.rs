//! Kinds of gateway.networking.k8s.io.

mod gateway;

pub use gateway::{AllowedNamespaces, Gateway};
