//! Findings by what they are about, so that what is looked at again replaces what was said of it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use crate::code::Code;
use crate::finding::Finding;
use crate::object::{Key, ObjectId};

/// Whose findings they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// Directories.
    Tree,
    /// A file, or an object that a cluster tells of.
    Source(PathBuf),
    /// A name that several objects have.
    Twice(ObjectId),
    /// A Namespace.
    Namespace(Arc<str>),
    /// A Pod.
    Pod(Key),
    /// A Service with its slices.
    Service(Key),
    /// What is referred to and absent.
    Missing(Code, Arc<str>),
    /// The mesh configuration.
    MeshConfig,
    /// All ServiceEntries.
    Entries,
    /// All Telemetries.
    Telemetries,
    /// All limits on requests.
    RateLimits,
    /// All policies.
    Policies,
    /// All of the application layer.
    L7,
}

/// Findings in order.
#[derive(Debug, Default)]
pub(super) struct FindingSet {
    by_owner: HashMap<Owner, Vec<Arc<Finding>>>,
    /// Each with how many say it.
    all: BTreeMap<Arc<Finding>, usize>,
    /// What was given out last; none when something else is said by now.
    given: Option<Arc<[Finding]>>,
}

impl FindingSet {
    /// Replaces what was said of `owner`.
    pub(super) fn set(&mut self, owner: Owner, findings: Vec<Finding>) {
        let old = self.by_owner.get(&owner).map_or(&[][..], Vec::as_slice);
        if old.iter().map(|finding| &**finding).eq(findings.iter()) {
            return;
        }
        self.given = None;
        for finding in self.by_owner.remove(&owner).unwrap_or_default() {
            if let Some(count) = self.all.get_mut(&finding) {
                *count -= 1;
                if *count == 0 {
                    self.all.remove(&finding);
                }
            }
        }
        if findings.is_empty() {
            return;
        }
        let findings: Vec<_> = findings.into_iter().map(Arc::new).collect();
        for finding in &findings {
            *self.all.entry(Arc::clone(finding)).or_default() += 1;
        }
        self.by_owner.insert(owner, findings);
    }

    /// All findings in order: the same slice as long as they are the same.
    pub(super) fn all(&mut self) -> Arc<[Finding]> {
        let all = &self.all;
        let given = self.given.get_or_insert_with(|| {
            let each = all.iter().flat_map(|(finding, count)| std::iter::repeat_n(Finding::clone(finding), *count));
            each.collect()
        });
        Arc::clone(given)
    }
}
