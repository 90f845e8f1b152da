//! An ordered collection that is cheap to copy and to change: a copy shares all, and a change copies one chunk and the list of
//! them.

use std::cmp::Ordering;
use std::sync::Arc;

/// A chunk that grows beyond this is split.
const CHUNK: usize = 256;

/// What an element is found by.
pub trait Named {
    /// Namespace and name.
    fn key(&self) -> (&str, &str);
}

/// Elements in the order of namespace and name, each once.
#[derive(Debug)]
pub struct Ordered<T> {
    /// None is empty.
    chunks: Arc<Vec<Chunk<T>>>,
    len: usize,
}

type Chunk<T> = Arc<Vec<Arc<T>>>;

impl<T> Clone for Ordered<T> {
    fn clone(&self) -> Self {
        Self { chunks: Arc::clone(&self.chunks), len: self.len }
    }
}

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<T: Named> Ordered<T> {
    /// The element of that name.
    #[must_use]
    pub fn get(&self, key: (&str, &str)) -> Option<&Arc<T>> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let index = chunk.binary_search_by(|element| element.key().cmp(&key)).ok()?;
        chunk.get(index)
    }

    /// Puts an element in, in the place of one with its name.
    pub fn insert(&mut self, element: Arc<T>) {
        let at = self.chunk_of(element.key());
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Arc::new(vec![element]));
            self.len = 1;
            return;
        };
        let chunk = Arc::make_mut(chunk);
        match chunk.binary_search_by(|other| other.key().cmp(&element.key())) {
            Ok(index) => chunk[index] = element,
            Err(index) => {
                self.len += 1;
                chunk.insert(index, element);
                if chunk.len() > CHUNK {
                    // What arrives in order leaves full chunks behind.
                    let split = if index + 1 == chunk.len() { CHUNK } else { CHUNK / 2 };
                    let rest = chunk.split_off(split);
                    chunk.shrink_to_fit();
                    chunks.insert(at + 1, Arc::new(rest));
                }
            }
        }
    }

    /// Takes the element of that name out.
    pub fn remove(&mut self, key: (&str, &str)) -> Option<Arc<T>> {
        let at = self.chunk_of(key);
        let index = self.chunks.get(at)?.binary_search_by(|element| element.key().cmp(&key)).ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[at]);
        let removed = chunk.remove(index);
        if chunk.is_empty() {
            chunks.remove(at);
        }
        self.len -= 1;
        Some(removed)
    }

    /// All elements, in order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { chunks: self.chunks.iter(), chunk: [].iter(), left: self.len }
    }

    /// What differs from `before`, of the names behind `after`, in order. What both share is passed over a chunk at a time.
    #[must_use]
    pub fn differences<'a>(&'a self, before: &'a Self, after: Option<(&str, &str)>) -> Differences<'a, T> {
        if Arc::ptr_eq(&self.chunks, &before.chunks) {
            return Differences { before: Cursor::at_the_end(), now: Cursor::at_the_end() };
        }
        Differences { before: Cursor::behind(before, after), now: Cursor::behind(self, after) }
    }

    /// The chunk that has, or would have, an element of that name.
    fn chunk_of(&self, key: (&str, &str)) -> usize {
        let begins_after = |chunk: &Chunk<T>| match chunk.first() {
            Some(first) => first.key().cmp(&key) == Ordering::Greater,
            None => false,
        };
        self.chunks.partition_point(|chunk| !begins_after(chunk)).saturating_sub(1)
    }
}

/// Elements in order.
pub struct Iter<'a, T> {
    chunks: std::slice::Iter<'a, Chunk<T>>,
    chunk: std::slice::Iter<'a, Arc<T>>,
    left: usize,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a Arc<T>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(element) = self.chunk.next() {
                self.left -= 1;
                return Some(element);
            }
            self.chunk = self.chunks.next()?.iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T> ExactSizeIterator for Iter<'_, T> {}

/// An element that came, went or changed: what it was, and what it is.
pub type Difference<'a, T> = (Option<&'a Arc<T>>, Option<&'a Arc<T>>);

/// Elements that differ, in order.
#[derive(Debug)]
pub struct Differences<'a, T> {
    before: Cursor<'a, T>,
    now: Cursor<'a, T>,
}

impl<'a, T: Named + PartialEq> Iterator for Differences<'a, T> {
    type Item = Difference<'a, T>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while self.before.begins_as(&self.now) {
                self.before.skip_chunk();
                self.now.skip_chunk();
            }
            let (before, now) = (self.before.peek(), self.now.peek());
            let order = match (before, now) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(before), Some(now)) => before.key().cmp(&now.key()),
            };
            if order.is_le() {
                self.before.step();
            }
            if order.is_ge() {
                self.now.step();
            }
            match order {
                Ordering::Less => return Some((before, None)),
                Ordering::Greater => return Some((None, now)),
                Ordering::Equal => {
                    let both = before.zip(now);
                    if both.is_some_and(|(before, now)| !Arc::ptr_eq(before, now) && before != now) {
                        return Some((before, now));
                    }
                }
            }
        }
    }
}

/// A place in a collection.
#[derive(Debug)]
struct Cursor<'a, T> {
    chunks: &'a [Chunk<T>],
    index: usize,
}

impl<'a, T: Named> Cursor<'a, T> {
    const fn at_the_end() -> Self {
        Self { chunks: &[], index: 0 }
    }

    fn behind(all: &'a Ordered<T>, after: Option<(&str, &str)>) -> Self {
        let Some(key) = after else { return Self { chunks: &all.chunks, index: 0 } };
        let chunks = all.chunks.get(all.chunk_of(key)..).unwrap_or_default();
        let passed = |chunk: &Chunk<T>| chunk.partition_point(|element| element.key() <= key);
        let mut cursor = Self { chunks, index: chunks.first().map_or(0, passed) };
        cursor.settle();
        cursor
    }

    fn peek(&self) -> Option<&'a Arc<T>> {
        self.chunks.first()?.get(self.index)
    }

    fn step(&mut self) {
        self.index += 1;
        self.settle();
    }

    /// No chunk is empty, so the next one has an element.
    fn settle(&mut self) {
        if self.chunks.first().is_some_and(|chunk| self.index >= chunk.len()) {
            self.skip_chunk();
        }
    }

    fn skip_chunk(&mut self) {
        self.chunks = self.chunks.get(1..).unwrap_or_default();
        self.index = 0;
    }

    /// Whether both are where one and the same chunk begins.
    fn begins_as(&self, other: &Self) -> bool {
        let both = self.chunks.first().zip(other.chunks.first());
        self.index == 0 && other.index == 0 && both.is_some_and(|(own, others)| Arc::ptr_eq(own, others))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Element(String, u32);

    impl Named for Element {
        fn key(&self) -> (&str, &str) {
            ("n", &self.0)
        }
    }

    proptest! {
        /// Names from a range that is wider than a chunk, so that chunks are split and emptied.
        #[test]
        fn it_is_an_ordered_map_and_copies_stay_as_they_were(steps in prop::collection::vec((0u32..700, any::<bool>()), 0..1500)) {
            let (mut ordered, mut expected) = (Ordered::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (step, (number, put)) in (0u32..).zip(steps) {
                if step % 300 == 0 {
                    copies.push((ordered.clone(), expected.clone()));
                }
                let name = format!("{number:03}");
                if put {
                    ordered.insert(Arc::new(Element(name.clone(), step)));
                    expected.insert(name, step);
                } else {
                    let removed = ordered.remove(("n", &name)).map(|element| element.1);
                    prop_assert_eq!(removed, expected.remove(&name));
                }
            }
            copies.push((ordered, expected));
            for (ordered, expected) in copies {
                prop_assert_eq!(ordered.iter().len(), expected.len());
                let found: Vec<_> = ordered.iter().map(|element| (element.0.clone(), element.1)).collect();
                prop_assert!(found.iter().all(|(name, step)| ordered.get(("n", name)).map(|it| it.1) == Some(*step)));
                prop_assert_eq!(found, Vec::from_iter(expected));
            }
        }

        /// From any copy to any other, and from any name on.
        #[test]
        fn differences_are_what_came_went_or_changed(
            steps in prop::collection::vec((0u32..700, any::<bool>()), 0..1500),
            after in prop::option::of(0u32..700),
        ) {
            let mut ordered = Ordered::default();
            let mut copies = vec![ordered.clone()];
            for (step, (number, put)) in (0u32..).zip(steps) {
                let name = format!("{number:03}");
                if put {
                    // Some are put in as they are.
                    ordered.insert(Arc::new(Element(name, step / 200)));
                } else {
                    ordered.remove(("n", &name));
                }
                if step % 250 == 0 {
                    copies.push(ordered.clone());
                }
            }
            let after = after.map(|number| format!("{number:03}"));
            for (before, now) in copies.iter().flat_map(|before| copies.iter().map(move |now| (before, now))) {
                let of = |copy: &Ordered<Element>| -> BTreeMap<String, u32> {
                    let behind = copy.iter().filter(|element| after.as_ref().is_none_or(|after| element.0 > *after));
                    behind.map(|element| (element.0.clone(), element.1)).collect()
                };
                let (old, new) = (of(before), of(now));
                let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
                let expected: Vec<_> =
                    names.into_iter().map(|name| (old.get(name), new.get(name))).filter(|(old, new)| old != new).collect();
                let found = now.differences(before, after.as_deref().map(|after| ("n", after)));
                let found: Vec<_> = found.map(|(old, new)| (old.map(|old| &old.1), new.map(|new| &new.1))).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
