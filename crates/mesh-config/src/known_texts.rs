//! What the texts of a file were read to, so that those that are still there are not read again.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, LazyLock};

use crate::finding::Origin;
use crate::object::Entry;

/// With keys of this process, so that nobody can write two texts of one digest.
static DIGESTS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The digests of texts, each with the place among its file's entries of what it was read to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Texts(Vec<(u64, usize)>);

/// What a file's texts were read to.
pub(crate) struct Known<'a>(HashMap<u64, &'a Entry>);

/// What tells a text from others. Two have the same once in 2^64 times.
pub(crate) fn digest_of(text: impl Hash) -> u64 {
    DIGESTS.hash_one(text)
}

impl Texts {
    /// Notes at which place the entry is that a text was read to.
    pub(crate) fn note(&mut self, digest: u64, place: usize) {
        self.0.push((digest, place));
    }

    /// Takes no more room than is needed: a text that is its file's only one has changed if it is read again.
    pub(crate) fn pack(&mut self) {
        if self.0.len() < 2 {
            self.0.clear();
        }
        self.0.shrink_to_fit();
    }

    /// The texts with their entries.
    pub(crate) fn of<'a>(&self, entries: &'a [Entry]) -> Known<'a> {
        Known(self.0.iter().filter_map(|(digest, place)| Some((*digest, entries.get(*place)?))).collect())
    }
}

impl Known<'_> {
    /// What a text was read to, with the place where it is now.
    pub(crate) fn entry(&self, digest: u64, place: &Origin) -> Option<Entry> {
        let known = *self.0.get(&digest)?;
        let is_there = Origin { object: None, ..(*known.origin).clone() } == *place;
        let origin = if is_there {
            Arc::clone(&known.origin)
        } else {
            Arc::new(Origin { object: known.origin.object.clone(), ..place.clone() })
        };
        Some(Entry { origin, ..known.clone() })
    }
}
