//! What holds the joined pods in the mesh, looked at again and again: what is gone is put back, and told.

use std::fmt::Display;

use mesh_core::WorkloadUid;

use super::enrolment::Enrolment;
use crate::repairs::{EnrolmentChange, Repair};

impl Enrolment {
    /// Compares the kernel's truth with what should be, for the shared hooks and for every joined pod.
    pub(super) fn repair(&mut self) {
        let shared = self.datapath.repair_shared();
        self.tell(None, None, shared);
        let mut looked_at = Vec::with_capacity(self.joined.len());
        for (uid, joined) in &mut self.joined {
            let changed = joined.links_changed();
            let hooks = self.datapath.repair_pod(&joined.pod.netns, &joined.pod.addresses.get(), changed);
            let listeners = joined.repair_listeners(&self.workers);
            let quiet = hooks.as_ref().is_ok_and(Vec::is_empty) && listeners.as_ref().is_ok_and(Vec::is_empty);
            if !(quiet && self.unrepaired.is_empty()) {
                looked_at.push((uid.clone(), joined.pod.display_name.clone(), hooks, listeners));
            }
        }
        for (uid, pod, hooks, listeners) in looked_at {
            match (hooks, listeners) {
                (Ok(hooks), listeners) => {
                    self.tell(Some(&uid), Some(&pod), listeners.map(|more| [hooks, more].concat()));
                }
                (Err(error), listeners) => {
                    self.tell_done(Some(&pod), listeners.unwrap_or_default());
                    self.tell(Some(&uid), Some(&pod), Err::<Vec<_>, _>(error));
                }
            }
        }
        self.unrepaired.retain(|uid, _| uid.as_ref().is_none_or(|uid| self.joined.contains_key(uid)));
    }

    fn tell<E: Display>(&mut self, uid: Option<&WorkloadUid>, pod: Option<&str>, outcome: Result<Vec<Repair>, E>) {
        match outcome {
            Ok(repairs) => {
                self.tell_done(pod, repairs);
                self.unrepaired.remove(&uid.cloned());
            }
            Err(error) => self.tell_undone(uid, pod, &error.to_string()),
        }
    }

    fn tell_done(&self, pod: Option<&str>, repairs: Vec<Repair>) {
        for Repair { part, detail } in repairs {
            tracing::warn!(pod, what = part.as_str(), detail, "had vanished, and is there again");
            self.shared.telemetry.metrics.enrolment_repaired(part);
            self.shared.enrolment_events.add(pod, EnrolmentChange::Repaired { part, detail });
        }
    }

    fn tell_undone(&mut self, uid: Option<&WorkloadUid>, pod: Option<&str>, error: &str) {
        let known = self.unrepaired.insert(uid.cloned(), error.to_owned());
        if known.is_none_or(|known| known != error) {
            tracing::error!(pod, error, "has vanished, and is not back: it is tried again");
            self.shared.enrolment_events.add(pod, EnrolmentChange::NotRepaired { error: error.to_owned() });
        }
    }
}
