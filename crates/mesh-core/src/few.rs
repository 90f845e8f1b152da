//! A list of mostly one.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// A list that has a place for one, and takes memory beside that for none or several: nearly every Pod has one address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Few<T>(Held<T>);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Held<T> {
    One(T),
    /// None, or several.
    Others(Box<[T]>),
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Held::Others(Box::default()))
    }
}

impl<T: fmt::Debug> fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Held::One(one) => std::slice::from_ref(one),
            Held::Others(others) => others,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Held::One(one) => std::slice::from_mut(one),
            Held::Others(others) => others,
        }
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(list: Vec<T>) -> Self {
        list.into_iter().collect()
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(list: I) -> Self {
        let mut list = list.into_iter();
        Self(match (list.next(), list.next()) {
            (Some(one), None) => Held::One(one),
            (first, second) => Held::Others(first.into_iter().chain(second).chain(list).collect()),
        })
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn it_is_the_list_that_it_was_made_of() {
        for count in 0..4 {
            let list: Vec<u8> = (0..count).collect();
            let mut few = Few::from(list.clone());
            assert_eq!(*few, *list);
            assert!(HashSet::from([few.clone()]).contains(&list.iter().copied().collect::<Few<_>>()));
            few.iter_mut().for_each(|number| *number += 1);
            assert!((&few).into_iter().copied().eq(1..=count));
        }
    }
}
