//! What only one may have (an address, a uid) and several want: the first by namespace and name has it, and who lost is looked at
//! again when it goes.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use crate::object::Key;

/// Those who lost. Who has it, the snapshot tells.
#[derive(Debug)]
pub(super) struct Claims<C> {
    losers: HashMap<C, BTreeSet<Key>>,
    lost: HashMap<Key, Vec<C>>,
}

impl<C> Default for Claims<C> {
    fn default() -> Self {
        Self { losers: HashMap::new(), lost: HashMap::new() }
    }
}

impl<C: Clone + Eq + Hash> Claims<C> {
    /// Notes that another has what `key` wants.
    pub(super) fn lose(&mut self, key: &Key, claim: &C) {
        self.losers.entry(claim.clone()).or_default().insert(key.clone());
        self.lost.entry(key.clone()).or_default().push(claim.clone());
    }

    /// Who wants what is given up.
    pub(super) fn given_up(&self, claim: &C, queue: &mut BTreeSet<Key>) {
        queue.extend(self.losers.get(claim).into_iter().flatten().cloned());
    }

    /// Forgets what `key` wanted.
    pub(super) fn forget(&mut self, key: &Key) {
        for claim in self.lost.remove(key).unwrap_or_default() {
            if let Some(losers) = self.losers.get_mut(&claim) {
                losers.remove(key);
                if losers.is_empty() {
                    self.losers.remove(&claim);
                }
            }
        }
    }
}
