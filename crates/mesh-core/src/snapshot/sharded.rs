//! A hash set that is cheap to copy and to change: a change copies one shard, and copies share all others.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;

/// So many that a shard of 100,000 elements is copied in some microseconds, and so few that copying all references is.
const SHARDS: usize = 512;

/// Elements by what they borrow as.
#[derive(Debug, Clone)]
pub(super) struct Sharded<T> {
    /// None before the first element is put in.
    shards: Vec<Arc<HashSet<T>>>,
}

impl<T> Default for Sharded<T> {
    fn default() -> Self {
        Self { shards: Vec::new() }
    }
}

impl<T: Eq + Hash + Clone> Sharded<T> {
    pub(super) fn get<K: Eq + Hash + ?Sized>(&self, key: &K) -> Option<&T>
    where
        T: Borrow<K>,
    {
        self.shards.get(shard_of(key))?.get(key)
    }

    /// Puts an element in, in the place of one that is equal to it.
    pub(super) fn replace(&mut self, element: T) {
        if self.shards.is_empty() {
            self.shards = vec![Arc::default(); SHARDS];
        }
        let index = shard_of(&element);
        if let Some(shard) = self.shards.get_mut(index) {
            Arc::make_mut(shard).replace(element);
        }
    }

    pub(super) fn remove<K: Eq + Hash + ?Sized>(&mut self, key: &K)
    where
        T: Borrow<K>,
    {
        let index = shard_of(key);
        if let Some(shard) = self.shards.get_mut(index)
            && shard.contains(key)
        {
            Arc::make_mut(shard).remove(key);
        }
    }
}

/// An element hashes as what it borrows as, so either leads to its shard. Who chooses keys that fall into one shard makes
/// changes dearer, and no look-up: within a shard the standard library's own hash counts.
fn shard_of<K: Hash + ?Sized>(key: &K) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or_default()
}
