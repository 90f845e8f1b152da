//! What and how much is read, so that a wrong directory or a hostile file cannot take the program down.

use std::sync::Arc;

use mesh_core::policy::ROOT_NAMESPACE;

use crate::config::{Credentials, Options};

/// Bounds on what is read; what is over is a finding.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes in one file.
    pub(crate) file_bytes: u64,
    /// Objects in one file, items of lists included.
    pub(crate) documents: usize,
    /// Files and directories under the root.
    pub(crate) entries: usize,
    /// Directories inside one another.
    pub(crate) depth: usize,
    /// Mappings, sequences and scalars in one YAML document, aliases expanded.
    pub(crate) nodes: usize,
    /// Events that aliases may repeat in one YAML document.
    pub(crate) alias_events: usize,
    /// Whether Secrets are read at all.
    pub(crate) credentials: bool,
    /// Whether what objects are made of is kept, for others to be told.
    pub(crate) served: bool,
    /// The namespace whose ConfigMap `istio` is read; no other ConfigMap is.
    pub(crate) root_namespace: Arc<str>,
}

impl Limits {
    /// The usual ones, for that program.
    pub(crate) fn of(options: &Options) -> Self {
        Self {
            credentials: options.credentials != Credentials::Nobodys,
            served: options.served,
            root_namespace: options.root_namespace.as_str().into(),
            ..Self::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 64 << 20,
            documents: 200_000,
            entries: 200_000,
            depth: 16,
            nodes: 8_000_000,
            alias_events: 100_000,
            credentials: false,
            served: false,
            root_namespace: ROOT_NAMESPACE.into(),
        }
    }
}
