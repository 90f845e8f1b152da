//! Pods whose containers are held back until it is known whether they are in the mesh.

use mesh_core::WorkloadUid;
use tokio::sync::oneshot;

/// A pod whose sandbox runs, and whose containers wait.
pub struct Start {
    /// The pod's.
    pub uid: WorkloadUid,
    /// Inode of its sandbox's network namespace, where it is known: one of the same pod's that went before is another.
    pub netns_inode: Option<u64>,
    /// Who waits. It waits no more once the other end is gone.
    pub answer: oneshot::Sender<Verdict>,
}

/// Why containers need wait no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The pod is in the mesh, wholly.
    Enrolled,
    /// It is not to be in the mesh.
    Outside,
    /// A successor has this daemon's pods, and is asked as well.
    Successor,
    /// The daemon stops, and enrols nobody any more.
    Stopping,
}

/// Those that wait.
#[derive(Default)]
pub(super) struct Starts(Vec<Start>);

impl Starts {
    pub(super) fn push(&mut self, start: Start) {
        self.0.push(start);
    }

    /// Answers those of which something can be said, and forgets those for whom nobody waits.
    pub(super) fn settle(&mut self, verdict: impl Fn(&Start) -> Option<Verdict>) {
        let waiting = std::mem::take(&mut self.0);
        for start in waiting {
            match verdict(&start) {
                // Who waits no more needs no answer.
                Some(verdict) => drop(start.answer.send(verdict)),
                None if start.answer.is_closed() => {}
                None => self.0.push(start),
            }
        }
    }
}
