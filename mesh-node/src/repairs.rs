//! What the enrolment loop found missing and put back, and what else happened to the node's pods: for people to see.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, OnceLock},
    time::SystemTime,
};

use mesh_core::lock::UnpoisonedMutex as _;
use tokio::sync::mpsc;

/// Events kept: some minutes of a node whose pods all restart.
const KEPT: usize = 256;

/// A part of what holds a pod in the mesh: a closed set, for a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The pod's entry in the kernel's map.
    PodEntry,
    /// A program at the root of cgroup v2.
    CgroupHook,
    /// A TC program at one of the pod's interfaces.
    InterfaceHook,
    /// The file that keeps a hook in force when the daemon ends.
    Pin,
    /// One of the daemon's listeners inside the pod.
    Listener,
    /// The worker's task that takes connections from a listener.
    Acceptor,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 6] =
        [Self::PodEntry, Self::CgroupHook, Self::InterfaceHook, Self::Pin, Self::Listener, Self::Acceptor];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PodEntry => "pod_entry",
            Self::CgroupHook => "cgroup_hook",
            Self::InterfaceHook => "interface_hook",
            Self::Pin => "pin",
            Self::Listener => "listener",
            Self::Acceptor => "acceptor",
        }
    }
}

/// A part that was missing and is there again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// What kind of part.
    pub part: Part,
    /// Which one.
    pub detail: String,
}

impl Repair {
    /// A part, and which one it was.
    pub fn new(part: Part, detail: impl fmt::Display) -> Self {
        Self { part, detail: detail.to_string() }
    }
}

/// Something that happened to a pod of this node, or to the hooks of all.
#[derive(Clone, Debug)]
pub struct EnrolmentEvent {
    /// When, by this node's clock.
    pub at: SystemTime,
    /// `namespace/name`; none where it concerns every pod.
    pub pod: Option<String>,
    /// What.
    pub what: EnrolmentChange,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrolmentChange {
    /// It is in the mesh now.
    Enrolled {
        /// Its hooks were in force already: a daemon before this one took it in.
        again: bool,
    },
    /// It is out of it.
    Withdrawn,
    /// It should be in and could not be taken in.
    Failed {
        /// Why.
        error: String,
    },
    /// A part was missing and is there again.
    Repaired {
        /// What kind of part.
        part: Part,
        /// Which one.
        detail: String,
    },
    /// Connections from before it joined were ended or kept.
    Existing {
        /// How many of each.
        detail: String,
    },
    /// A part is missing and could not be put back; it is tried again.
    NotRepaired {
        /// Why.
        error: String,
    },
}

impl EnrolmentChange {
    /// In a word of a closed set.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Enrolled { .. } => "enrolled",
            Self::Withdrawn => "withdrawn",
            Self::Failed { .. } => "failed",
            Self::Repaired { .. } => "repaired",
            Self::Existing { .. } => "existing_connections",
            Self::NotRepaired { .. } => "not_repaired",
        }
    }

    /// More on it, for people.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Enrolled { .. } | Self::Withdrawn => None,
            Self::Failed { error } | Self::NotRepaired { error } => Some(error.clone()),
            Self::Existing { detail } => Some(detail.clone()),
            Self::Repaired { part, detail } => Some(format!("{}: {detail}", part.as_str())),
        }
    }
}

/// The latest events, oldest first.
#[derive(Debug, Default)]
pub struct EnrolmentEvents {
    kept: Mutex<VecDeque<EnrolmentEvent>>,
    follower: OnceLock<mpsc::Sender<EnrolmentEvent>>,
}

impl EnrolmentEvents {
    /// Keeps an event, in the place of the oldest where there is no room.
    pub fn add(&self, pod: Option<&str>, what: EnrolmentChange) {
        let event = EnrolmentEvent { at: SystemTime::now(), pod: pod.map(str::to_owned), what };
        if let Some(follower) = self.follower.get()
            && follower.try_send(event.clone()).is_err()
        {
            tracing::debug!(pod, what = event.what.as_str(), "not told on: more happens than can be told");
        }
        let mut events = self.kept.lock_unpoisoned();
        if events.len() >= KEPT {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// Those from here on, for the one who tells them on; nothing comes to a second one. Where that one is slow, some are left out.
    pub fn follow(&self) -> mpsc::Receiver<EnrolmentEvent> {
        let (follower, followed) = mpsc::channel(KEPT);
        // A second one's channel ends at once.
        let _ = self.follower.set(follower);
        followed
    }

    /// All that are kept.
    pub fn recent(&self) -> Vec<EnrolmentEvent> {
        self.kept.lock_unpoisoned().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_events_are_kept() {
        let events = EnrolmentEvents::default();
        for number in 0..KEPT + 10 {
            events.add(Some(&number.to_string()), EnrolmentChange::Enrolled { again: false });
        }
        let recent = events.recent();
        assert_eq!(recent.len(), KEPT);
        assert_eq!(recent[0].pod.as_deref(), Some("10"));
        let mut followed = events.follow();
        assert!(events.follow().try_recv().is_err(), "there is one who follows");
        for _ in 0..KEPT + 10 {
            events.add(Some("late"), EnrolmentChange::Withdrawn);
        }
        let mut told = 0;
        while followed.try_recv().is_ok() {
            told += 1;
        }
        assert_eq!(told, KEPT, "what is beyond the bound is left out");
        let repaired = EnrolmentChange::Repaired { part: Part::PodEntry, detail: "eth0".into() };
        assert_eq!((repaired.as_str(), repaired.detail().as_deref()), ("repaired", Some("pod_entry: eth0")));
    }
}
