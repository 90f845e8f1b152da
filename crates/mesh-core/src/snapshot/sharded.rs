//! A hash set that is cheap to copy and to change: a copy shares all, and a change copies one shard and the list of them.

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
    shards: Arc<Vec<Arc<HashSet<T>>>>,
}

impl<T> Default for Sharded<T> {
    fn default() -> Self {
        Self { shards: Arc::default() }
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
        if let Some(shard) = self.shard_mut(&element) {
            shard.replace(element);
        }
    }

    /// Puts what `change` makes of an element, or of none, in its place.
    pub(super) fn change<K: Eq + Hash + ?Sized>(&mut self, key: &K, change: impl FnOnce(Option<T>) -> Option<T>)
    where
        T: Borrow<K>,
    {
        if let Some(shard) = self.shard_mut(key) {
            let changed = change(shard.take(key));
            shard.extend(changed);
        }
    }

    pub(super) fn remove<K: Eq + Hash + ?Sized>(&mut self, key: &K)
    where
        T: Borrow<K>,
    {
        if self.get(key).is_some()
            && let Some(shard) = self.shard_mut(key)
        {
            shard.remove(key);
        }
    }

    /// The shard to which a key belongs, as one of this copy's own.
    fn shard_mut<K: Hash + ?Sized>(&mut self, key: &K) -> Option<&mut HashSet<T>> {
        let shards = Arc::make_mut(&mut self.shards);
        if shards.is_empty() {
            *shards = vec![Arc::default(); SHARDS];
        }
        shards.get_mut(shard_of(key)).map(Arc::make_mut)
    }
}

/// An element hashes as what it borrows as, so either leads to its shard. Who chooses keys that fall into one shard makes
/// changes dearer, and no look-up: within a shard the standard library's own hash counts.
fn shard_of<K: Hash + ?Sized>(key: &K) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or_default()
}
