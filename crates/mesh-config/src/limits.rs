//! How much is read, so that a wrong directory or a hostile file cannot take the program down.

/// Bounds on what is read; what is over is a finding.
#[derive(Debug, Clone, Copy)]
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
        }
    }
}
