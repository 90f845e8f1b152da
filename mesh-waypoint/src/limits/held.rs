//! What is known of a limit's buckets, over all threads.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use mesh_core::lock::UnpoisonedMutex as _;
use mesh_core::rate_limit::TokenBucket;

/// Shards of a limit's keys, each under a lock of its own.
const SHARDS: usize = 16;
/// Keys that have a bucket of their own at once, a shard: over a limit some 65,000, which is 2 MiB. Clients choose keys, and
/// must not choose our memory.
const MAX_KEYS: usize = 4_096;

/// One bucket for everybody: when it is full again, in nanoseconds.
#[derive(Debug, Default)]
struct Shared(AtomicU64);

impl Shared {
    fn take(&self, bucket: &TokenBucket, now: u64) -> bool {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| bucket.take(full_at, now));
        taken.is_ok()
    }
}

/// The buckets of some keys, by a keyed hash of each: nobody can choose keys that fall together.
#[derive(Debug, Default)]
struct Shard {
    full_at: HashMap<u64, u64>,
    /// Before then no bucket is full again, and looking for one is in vain.
    sweep_at: u64,
}

impl Shard {
    /// Whether the key has a bucket, or can get one.
    fn has_room(&mut self, key: u64, now: u64) -> bool {
        if self.full_at.len() < MAX_KEYS || self.full_at.contains_key(&key) {
            return true;
        }
        if now >= self.sweep_at {
            // A bucket that is full is as one that nobody has used.
            self.full_at.retain(|_, full_at| *full_at > now);
            self.sweep_at = self.full_at.values().copied().min().unwrap_or(now);
        }
        self.full_at.len() < MAX_KEYS
    }
}

/// A limit's buckets and what became of requests.
#[derive(Debug)]
pub(crate) struct Held {
    bucket: TokenBucket,
    everybody: Shared,
    /// Those whose keys are too many share this one.
    crowd: Shared,
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// Requests that found a token.
    pub(super) passed: AtomicU64,
    /// Requests that were refused.
    pub(super) limited: AtomicU64,
    /// Requests that found no token, and passed since not all are refused.
    pub(super) spared: AtomicU64,
}

impl Held {
    /// Full buckets; of keys where there are any.
    pub(super) fn new(bucket: TokenBucket, keyed: bool) -> Self {
        let shards = if keyed { SHARDS } else { 0 };
        Self {
            bucket,
            everybody: Shared::default(),
            crowd: Shared::default(),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            passed: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            spared: AtomicU64::new(0),
        }
    }

    /// Whether that is what a limit keeps: buckets of another size begin anew.
    pub(super) fn is_of(&self, bucket: TokenBucket, keyed: bool) -> bool {
        self.bucket == bucket && self.shards.is_empty() != keyed
    }

    /// Takes a token of everybody's bucket, or of the key's own, at `now` in nanoseconds.
    pub(super) fn take(&self, key: Option<&str>, now: u64) -> bool {
        let Some(key) = key else { return self.everybody.take(&self.bucket, now) };
        let hash = self.hasher.hash_one(key);
        // The remainder is less than the number of shards.
        let place = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        let Some(shard) = self.shards.get(place) else { return self.everybody.take(&self.bucket, now) };
        let mut shard = shard.lock_unpoisoned();
        if !shard.has_room(hash, now) {
            drop(shard);
            return self.crowd.take(&self.bucket, now);
        }
        let full_at = shard.full_at.entry(hash).or_default();
        let taken = self.bucket.take(*full_at, now);
        *full_at = taken.unwrap_or(*full_at);
        taken.is_some()
    }

    /// Keys that have a bucket of their own.
    pub(super) fn keys(&self) -> usize {
        let count = |shard: &Mutex<Shard>| shard.lock_unpoisoned().full_at.len();
        self.shards.iter().map(count).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    fn held(size: u32, keyed: bool) -> Held {
        Held::new(TokenBucket::new(size, size, Duration::from_secs(60)).expect("a bucket"), keyed)
    }

    #[test]
    fn threads_take_no_more_than_there_is() {
        let held = Arc::new(held(1_000, false));
        let threads = (0..4).map(|_| {
            let held = held.clone();
            std::thread::spawn(move || (0..1_000).filter(|_| held.take(None, 1)).count())
        });
        let threads: Vec<_> = threads.collect();
        let taken: usize = threads.into_iter().map(|thread| thread.join().expect("it ends")).sum();
        assert_eq!(taken, 1_000);
    }

    #[test]
    fn keys_are_bounded_and_those_beyond_share_one_bucket() {
        let held = held(1, true);
        let passed = (0..200_000).filter(|key: &u32| held.take(Some(&key.to_string()), 1)).count();
        assert_eq!(held.keys(), SHARDS * MAX_KEYS);
        assert_eq!(passed, SHARDS * MAX_KEYS + 1, "each key its own token, and all others one");
        assert!(!held.take(Some("0"), 1), "who came first is still known");
        // Once their buckets are full again they make room.
        let later = 61_000_000_000;
        assert!((0..100).all(|key: u32| held.take(Some(&format!("new {key}")), later)));
        assert!(held.keys() < SHARDS * MAX_KEYS);
    }
}
