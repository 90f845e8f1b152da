//! Which of several definitions of one object is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::finding_set::{FindingSet, Owner};
use crate::code::Code;
use crate::finding::{Finding, Origin};
use crate::kind::Kind;
use crate::object::{Entry, ObjectId, ObjectSet, place};

/// The objects in force, and what else claims their names.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    pub(super) objects: ObjectSet,
    /// All definitions of names that have several, the one in force first.
    contested: BTreeMap<ObjectId, Vec<Entry>>,
}

/// What came in force, and what went.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) before: Option<Entry>,
    pub(super) now: Option<Entry>,
}

/// What stands in a file comes before what stays in force although its file does not say it; then by place.
type Rank<'a> = (bool, &'a Path, Option<usize>, Option<usize>);

fn rank(entry: &Entry) -> Rank<'_> {
    let Origin { file, document, item, .. } = &*entry.origin;
    (entry.kept, file, *document, *item)
}

impl Definitions {
    /// The definition that stands there of an object of a numerous kind, in force or not.
    pub(super) fn numerous_at(&self, id: &ObjectId, origin: &Arc<Origin>) -> Option<Entry> {
        let stands_there = |entry: &Entry| Arc::ptr_eq(&entry.origin, origin);
        match self.contested.get(id) {
            Some(all) => all.iter().find(|entry| stands_there(entry)).cloned(),
            None => self.objects.numerous(id).filter(stands_there),
        }
    }

    /// The objects of a numerous kind of which a definition stands there, in force or not.
    pub(super) fn all_numerous_at(&self, kind: Kind, origin: &Arc<Origin>) -> Vec<ObjectId> {
        let of_kind = self.objects.numerous_at(kind, origin).into_iter().map(|key| ObjectId { kind, key });
        let contested = self.contested.keys().filter(|id| id.kind == kind).cloned();
        let all: BTreeSet<_> = of_kind.chain(contested).collect();
        all.into_iter().filter(|id| self.numerous_at(id, origin).is_some()).collect()
    }

    pub(super) fn add(&mut self, entry: &Entry, findings: &mut FindingSet) -> Step {
        let before = self.objects.take(&entry.id);
        let now = match self.contested.get_mut(&entry.id) {
            None if before.is_none() => entry.clone(),
            known => {
                let mut all: Vec<Entry> = known.map_or_else(|| before.iter().cloned().collect(), std::mem::take);
                all.push(entry.clone());
                self.contest(&entry.id, all, findings)
            }
        };
        self.objects.put(now.clone());
        Step { before, now: Some(now) }
    }

    pub(super) fn remove(&mut self, entry: &Entry, findings: &mut FindingSet) -> Step {
        let before = self.objects.take(&entry.id);
        let Some(mut all) = self.contested.remove(&entry.id) else {
            return Step { before, now: None };
        };
        if let Some(index) = all.iter().position(|other| rank(other) == rank(entry)) {
            all.remove(index);
        }
        let now = self.contest(&entry.id, all, findings);
        self.objects.put(now.clone());
        Step { before, now: Some(now) }
    }

    /// Ranks definitions, of which there is at least one; tells of those that are not in force, and gives the one that is.
    fn contest(&mut self, id: &ObjectId, mut all: Vec<Entry>, findings: &mut FindingSet) -> Entry {
        all.sort_by(|a, b| rank(a).cmp(&rank(b)));
        let first = all[0].clone();
        // Where a kept one stands elsewhere by now, that is the newer word.
        let others = all.iter().skip(1).filter(|entry| !entry.kept);
        let message = format!("the first definition is at {}", place(&first.origin));
        let told = others.map(|other| Finding::new(Code::DefinedTwice, other.named_origin(), message.clone()));
        findings.set(Owner::Twice(id.clone()), told.collect());
        if all.len() > 1 {
            self.contested.insert(id.clone(), all);
        } else {
            self.contested.remove(id);
        }
        first
    }
}
