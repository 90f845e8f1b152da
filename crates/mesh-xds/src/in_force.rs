//! At how many of those who are told a resource is in force. Pure.
//!
//! What is compared is the version of the one resource, the hash of what it says: generations count one replica's own changes,
//! and two replicas need not ever have served the same state as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::proto::{InForceRequest, InForceResponse, Wanted};
use crate::table::Table;

/// At how many of those who are told something is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Those at whom it is.
    pub current: usize,
    /// All who are told.
    pub all: usize,
}

/// What is in force at all who are told by this process, at one moment. Most of them have the same state.
#[derive(Debug, Default)]
pub struct InForce {
    all: usize,
    /// The states by their generations, and at how many each is in force.
    states: BTreeMap<u64, (Arc<Table>, usize)>,
}

impl InForce {
    /// One more is told, at whom that state is in force; none as long as it has taken nothing as a whole.
    pub(crate) fn add(&mut self, state: Option<&Arc<Table>>) {
        self.all += 1;
        if let Some(state) = state {
            self.states.entry(state.version().generation).or_insert_with(|| (Arc::clone(state), 0)).1 += 1;
        }
    }

    /// At how many a resource is in force in exactly that version.
    #[must_use]
    pub fn count(&self, wanted: &Wanted) -> Count {
        let has = |state: &Table| state.get(&wanted.name).is_some_and(|known| known.version() == wanted.version);
        let current = self.states.values().filter(|(state, _)| has(state)).map(|(_, count)| count).sum();
        Count { current, all: self.all }
    }

    /// The answer to a question of another replica.
    pub(crate) fn answer(&self, question: &InForceRequest) -> InForceResponse {
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        let current = question.wanted.iter().map(|wanted| number(self.count(wanted).current));
        InForceResponse { all: number(self.all), current: current.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Body, Resource};

    fn state(generation: u64, resources: &[(&str, &[u8])]) -> Arc<Table> {
        let mut table = Table::default();
        for (name, says) in resources {
            table.put(resource(name, says));
        }
        Arc::new(table.at(generation))
    }

    fn resource(name: &str, says: &[u8]) -> Resource {
        Resource::new(name, Body::Message(says.to_vec().into()))
    }

    fn wanted(name: &str, says: &[u8]) -> Wanted {
        Wanted { name: name.to_owned(), version: resource(name, says).version() }
    }

    #[test]
    fn counted_is_who_has_exactly_that_version_whatever_else_it_has() {
        let mut in_force = InForce::default();
        let old = state(3, &[("a", b"1")]);
        for state in [Some(&old), Some(&old), Some(&state(4, &[("a", b"2"), ("b", b"1")])), None] {
            in_force.add(state);
        }
        for (wanted, current) in [
            (wanted("a", b"1"), 2),
            (wanted("a", b"2"), 1),
            (wanted("a", b"3"), 0),
            (wanted("b", b"1"), 1),
            (wanted("c", b"1"), 0),
        ] {
            assert_eq!(in_force.count(&wanted), Count { current, all: 4 }, "{wanted:?}");
        }
    }
}
