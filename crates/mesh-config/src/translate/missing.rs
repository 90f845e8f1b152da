//! What Pods refer to and is not there: said once, of the first that refers to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::finding_set::{FindingSet, Owner};
use crate::code::Code;
use crate::finding::Finding;
use crate::kind::Kind;
use crate::object::{Key, ObjectSet};

/// Something absent: the code that tells of it, and its name.
type Absent = (Code, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Missing {
    by: BTreeMap<Absent, BTreeSet<Key>>,
    of: HashMap<Key, Vec<Absent>>,
    touched: BTreeSet<Absent>,
}

impl Missing {
    pub(super) fn add(&mut self, pod: &Key, code: Code, name: Arc<str>) {
        let absent = (code, name);
        self.by.entry(absent.clone()).or_default().insert(pod.clone());
        self.touched.insert(absent.clone());
        self.of.entry(pod.clone()).or_default().push(absent);
    }

    pub(super) fn forget(&mut self, pod: &Key) {
        for absent in self.of.remove(pod).unwrap_or_default() {
            if let Some(pods) = self.by.get_mut(&absent) {
                pods.remove(pod);
                if pods.is_empty() {
                    self.by.remove(&absent);
                }
            }
            self.touched.insert(absent);
        }
    }

    /// Says what is absent now.
    pub(super) fn tell(&mut self, objects: &ObjectSet, findings: &mut FindingSet) {
        for absent in std::mem::take(&mut self.touched) {
            let first = self.by.get(&absent).and_then(BTreeSet::first);
            let first = first.and_then(|key| Some(objects.pods.get(key)?.origin_of(Kind::Pod, key)));
            let (code, name) = absent;
            let field = match code {
                Code::NoNode => "spec.nodeName",
                Code::NoServiceAccount => "spec.serviceAccountName",
                _ => "metadata.namespace",
            };
            let finding = |origin| Finding::new(code, origin, format!("{name} does not exist")).at(field);
            let told = first.map(finding);
            findings.set(Owner::Missing(code, Arc::clone(&name)), told.into_iter().collect());
        }
    }
}
