//! Names with versions, in the order of names and in little memory: of a name is held what the one before it does not begin
//! with. A node has as many as there are objects, and looks at them when it connects anew.

use std::collections::BTreeMap;

use prost::{decode_length_delimiter, encode_length_delimiter};

/// Names that stand together: a change reads and writes so many.
const CHUNK: usize = 64;

/// A version for each name.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    /// In order; none is empty.
    chunks: Vec<Chunk>,
    len: usize,
}

impl Versions {
    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, u64)> {
        self.chunks.iter().flat_map(Chunk::iter)
    }

    /// Whether there is a version for that name.
    pub(crate) fn contain(&self, name: &str) -> bool {
        self.chunks.get(self.chunk_of(name)).is_some_and(|chunk| chunk.iter().any(|(known, _)| known == name))
    }

    /// Takes versions in the place of those that are there, and takes out those that are none.
    pub(crate) fn change(&mut self, changes: BTreeMap<&str, Option<u64>>) {
        let mut changes = changes.into_iter().peekable();
        while let Some((name, _)) = changes.peek() {
            let at = self.chunk_of(name);
            let next = self.chunks.get(at + 1).map(|next| next.first().to_owned());
            let mut entries: BTreeMap<String, u64> = self.chunks.get(at).into_iter().flat_map(Chunk::iter).collect();
            self.len -= entries.len();
            let stands_here = |name: &str| next.as_ref().is_none_or(|next| name.as_bytes() < &next[..]);
            while let Some((name, version)) = changes.next_if(|(name, _)| stands_here(name)) {
                match version {
                    Some(version) => drop(entries.insert(name.to_owned(), version)),
                    None => drop(entries.remove(name)),
                }
            }
            self.len += entries.len();
            let entries: Vec<_> = entries.into_iter().collect();
            let replaced = at..self.chunks.len().min(at + 1);
            self.chunks.splice(replaced, entries.chunks(CHUNK).map(Chunk::of));
        }
    }

    /// The chunk that has, or would have, that name.
    fn chunk_of(&self, name: &str) -> usize {
        self.chunks.partition_point(|chunk| chunk.first() <= name.as_bytes()).saturating_sub(1)
    }
}

/// Each name as the number of octets that it has in common with the one before, the rest with its length, and the version.
#[derive(Debug)]
struct Chunk(Box<[u8]>);

impl Chunk {
    fn of(entries: &[(String, u64)]) -> Self {
        let (mut octets, mut before) = (Vec::new(), "");
        for (name, version) in entries {
            let shared = before.bytes().zip(name.bytes()).take_while(|(one, other)| one == other).count();
            let rest = &name.as_bytes()[shared..];
            for length in [shared, rest.len()] {
                // A vector takes whatever comes.
                let _ = encode_length_delimiter(length, &mut octets);
            }
            octets.extend_from_slice(rest);
            octets.extend_from_slice(&version.to_be_bytes());
            before = name;
        }
        Self(octets.into())
    }

    /// The first name, in octets: it shares nothing.
    fn first(&self) -> &[u8] {
        Entries { octets: &self.0, name: Vec::new() }.entry().map_or(&[], |(_, rest, _)| rest)
    }

    fn iter(&self) -> Entries<'_> {
        Entries { octets: &self.0, name: Vec::new() }
    }
}

struct Entries<'a> {
    octets: &'a [u8],
    /// The name before.
    name: Vec<u8>,
}

impl<'a> Entries<'a> {
    /// How much of the name before counts, the rest, and the version.
    fn entry(&mut self) -> Option<(usize, &'a [u8], u64)> {
        let mut length = || decode_length_delimiter(&mut self.octets).ok();
        let (shared, rest) = (length()?, length()?);
        let (rest, others) = self.octets.split_at_checked(rest)?;
        let (version, others) = others.split_first_chunk()?;
        self.octets = others;
        Some((shared, rest, u64::from_be_bytes(*version)))
    }
}

impl Iterator for Entries<'_> {
    type Item = (String, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let (shared, rest, version) = self.entry()?;
        self.name.truncate(shared);
        self.name.extend_from_slice(rest);
        let name = String::from_utf8(self.name.clone()).ok()?;
        Some((name, version))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn octets(versions: &Versions) -> usize {
        versions.chunks.iter().map(|chunk| size_of::<Chunk>() + chunk.0.len()).sum()
    }

    #[test]
    fn names_as_a_cluster_has_them_take_few_octets() {
        let name = |pod| format!("/Pod/team-{}/service-{}-6d5f7c9b4d-{pod:05}", pod / 1000, pod / 10);
        let names: Vec<String> = (0..10_000).map(name).collect();
        let mut versions = Versions::default();
        versions.change(names.iter().map(|name| (name.as_str(), Some(u64::MAX))).collect());
        assert_eq!(versions.len(), names.len());
        let each = octets(&versions) / names.len();
        assert!(each <= 16, "{each} octets for each");
    }

    proptest! {
        /// Of a range that is wider than a chunk, so that chunks are split and emptied; with letters of several octets.
        #[test]
        fn they_are_an_ordered_map(
            steps in prop::collection::vec(prop::collection::btree_map(0u32..300, any::<Option<u64>>(), 0..200), 0..12)
        ) {
            let (mut versions, mut expected) = (Versions::default(), BTreeMap::new());
            for step in steps {
                let name = |number: u32| format!("/Pod/{}/n{number:03}{}", number / 40, ["", "ä", "á", "𝔞"][number as usize % 4]);
                let step: Vec<_> = step.into_iter().map(|(number, version)| (name(number), version)).collect();
                versions.change(step.iter().map(|(name, version)| (name.as_str(), *version)).collect());
                for (name, version) in step {
                    match version {
                        Some(version) => drop(expected.insert(name, version)),
                        None => drop(expected.remove(&name)),
                    }
                }
                prop_assert_eq!(versions.len(), expected.len());
                prop_assert!((0..300).map(name).all(|name| versions.contain(&name) == expected.contains_key(&name)));
                prop_assert!(versions.iter().eq(expected.clone()));
                prop_assert!(versions.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.iter().count())));
            }
        }
    }
}
