//! Which of the node's pods should be in the mesh and are not, for those who ask.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use mesh_core::WorkloadUid;

/// The enrolment loop's last comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// How many pods should be in.
    pub desired: usize,
    /// How many are.
    pub enrolled: usize,
    /// The network namespaces of those that are, by their inode numbers.
    pub namespaces: BTreeMap<WorkloadUid, u64>,
    /// Those that are not.
    pub waiting: BTreeMap<WorkloadUid, Waiting>,
    /// How many connections from before their joining live on, of the pods that have any.
    pub existing: BTreeMap<WorkloadUid, usize>,
}

/// A pod that should be in the mesh and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Whether it could not be enrolled, and not merely not yet.
    pub failed: bool,
    /// Why it is not in.
    pub reason: String,
    /// Since when.
    pub since: Instant,
}

impl Waiting {
    /// `failed` or `pending`.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        if self.failed { "failed" } else { "pending" }
    }
}
