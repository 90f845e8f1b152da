//! An ordered collection that is cheap to copy and to change: a change copies one chunk, and copies share all others.

use std::cmp::Ordering;
use std::sync::Arc;

/// A chunk that grows beyond this is split.
const CHUNK: usize = 256;

/// What an element is found by.
pub(super) trait Named {
    /// Namespace and name.
    fn key(&self) -> (&str, &str);
}

/// Elements in the order of namespace and name, each once.
#[derive(Debug)]
pub(super) struct Ordered<T> {
    /// None is empty.
    chunks: Vec<Arc<Vec<Arc<T>>>>,
    len: usize,
}

impl<T> Clone for Ordered<T> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
    }
}

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<T: Named> Ordered<T> {
    pub(super) fn get(&self, key: (&str, &str)) -> Option<&Arc<T>> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let index = chunk.binary_search_by(|element| element.key().cmp(&key)).ok()?;
        chunk.get(index)
    }

    /// Puts an element in, in the place of one with its name.
    pub(super) fn insert(&mut self, element: Arc<T>) {
        let at = self.chunk_of(element.key());
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(Arc::new(vec![element]));
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
                    self.chunks.insert(at + 1, Arc::new(rest));
                }
            }
        }
    }

    pub(super) fn remove(&mut self, key: (&str, &str)) -> Option<Arc<T>> {
        let at = self.chunk_of(key);
        let chunk = self.chunks.get_mut(at)?;
        let index = chunk.binary_search_by(|element| element.key().cmp(&key)).ok()?;
        let removed = Arc::make_mut(chunk).remove(index);
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
        self.len -= 1;
        Some(removed)
    }

    pub(super) fn iter(&self) -> Iter<'_, T> {
        Iter { chunks: self.chunks.iter(), chunk: [].iter(), left: self.len }
    }

    /// The chunk that has, or would have, an element of that name.
    fn chunk_of(&self, key: (&str, &str)) -> usize {
        let begins_after = |chunk: &Arc<Vec<Arc<T>>>| match chunk.first() {
            Some(first) => first.key().cmp(&key) == Ordering::Greater,
            None => false,
        };
        self.chunks.partition_point(|chunk| !begins_after(chunk)).saturating_sub(1)
    }
}

/// Elements in order.
pub(super) struct Iter<'a, T> {
    chunks: std::slice::Iter<'a, Arc<Vec<Arc<T>>>>,
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
    }
}
