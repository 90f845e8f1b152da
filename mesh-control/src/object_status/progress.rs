//! What is on its way to those who are told, and how far it is at all of them, whichever replica tells them.

use std::collections::HashMap;
use std::time::Instant;

use mesh_xds::Count;
use mesh_xds::proto::Wanted;
use tokio::sync::watch;

use super::written::RECONCILED;
use crate::gateways::condition::Condition;

/// The versions of objects that are not known to be in force everywhere, and since when; by their paths. Clones share them.
#[derive(Clone, Default)]
pub(super) struct OnTheirWay(watch::Sender<HashMap<String, (u64, Instant)>>);

impl OnTheirWay {
    /// Notes a version; says since when it is on its way.
    pub(super) fn note(&self, wanted: &Wanted) -> Instant {
        let known = self.0.borrow().get(&wanted.name).copied();
        match known {
            Some((version, since)) if version == wanted.version => since,
            _ => {
                let since = Instant::now();
                self.0.send_modify(|known| {
                    known.insert(wanted.name.clone(), (wanted.version, since));
                });
                since
            }
        }
    }

    pub(super) fn remove(&self, path: &str) {
        self.0.send_if_modified(|known| known.remove(path).is_some());
    }

    /// Forgets those that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.0.send_modify(|known| known.retain(|path, _| is_there(path)));
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Wanted> {
        let known = self.0.borrow();
        known.iter().map(|(name, (version, _))| Wanted { name: name.clone(), version: *version }).collect()
    }

    /// Waits until there is one.
    pub(super) async fn any(&self) {
        // The sender is our own.
        let _ = self.0.subscribe().wait_for(|known| !known.is_empty()).await;
    }
}

/// At how many of all who are told an object is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    current: usize,
    all: usize,
    replicas: usize,
    /// Replicas that did not say how far those are whom they tell.
    silent: usize,
}

impl Tally {
    /// Of what this replica knows, and what others have said; none of one that has said nothing.
    pub(super) fn of(own: Count, peers: &[Option<Count>]) -> Self {
        let said = || peers.iter().flatten();
        Self {
            current: own.current + said().map(|count| count.current).sum::<usize>(),
            all: own.all + said().map(|count| count.all).sum::<usize>(),
            replicas: 1 + peers.len(),
            silent: peers.len() - said().count(),
        }
    }

    /// Where nobody is told nothing is in force: all may be about to connect.
    pub(super) const fn is_everywhere(self) -> bool {
        self.current == self.all && self.all > 0 && self.silent == 0
    }

    /// What is to be said of it.
    pub(super) fn condition(self) -> Condition {
        let Self { current, all, replicas, silent } = self;
        let counted = format!("in force at {current} of {all} nodes, waypoints and gateways");
        if self.is_everywhere() {
            Condition { message: counted, ..Condition::holds(RECONCILED, "Reconciled") }
        } else if silent == 0 {
            Condition::fails(RECONCILED, "Pending", counted)
        } else {
            let unknown = format!(
                "what is in force at those that {silent} of {replicas} replicas of mesh-control tell is unknown"
            );
            let message = format!("{counted}; {unknown}: see their logs");
            // At one at least it is not, whatever others would say.
            let holds = if current < all { Some(false) } else { None };
            Condition { kind: RECONCILED, holds, reason: "Pending", message }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(own: (usize, usize), peers: &[Option<(usize, usize)>]) -> Tally {
        let count = |(current, all)| Count { current, all };
        Tally::of(count(own), &peers.iter().map(|peer| peer.map(count)).collect::<Vec<_>>())
    }

    #[test]
    fn it_is_everywhere_when_every_replica_says_so_and_somebody_is_told() {
        for (own, peers, status, message) in [
            ((2, 2), &[][..], Some(true), "in force at 2 of 2 "),
            ((0, 0), &[], Some(false), "in force at 0 of 0 "),
            ((1, 1), &[Some((1, 1))], Some(true), "in force at 2 of 2 "),
            ((1, 1), &[Some((0, 1))], Some(false), "in force at 1 of 2 "),
            // All nodes are at the other one.
            ((0, 0), &[Some((2, 2))], Some(true), "in force at 2 of 2 "),
            ((1, 1), &[None], None, "in force at 1 of 1 "),
            ((0, 1), &[None], Some(false), "in force at 0 of 1 "),
            ((1, 1), &[Some((1, 1)), None], None, "in force at 2 of 2 "),
        ] {
            let condition = tally(own, peers).condition();
            assert_eq!(condition.holds, status, "{own:?} {peers:?}: {condition:?}");
            assert!(condition.message.starts_with(message), "{condition:?}");
            assert_eq!(condition.message.contains("unknown"), peers.contains(&None), "{condition:?}");
        }
        let message = tally((1, 1), &[Some((1, 1)), None]).condition().message;
        assert!(message.contains("1 of 3 replicas of mesh-control"), "{message}");
    }

    #[test]
    fn another_version_is_on_its_way_since_it_was_seen() {
        let on_their_way = OnTheirWay::default();
        let of = |name: &str, version| Wanted { name: name.to_owned(), version };
        let first = on_their_way.note(&of("a", 1));
        assert_eq!(on_their_way.note(&of("a", 1)), first);
        assert!(on_their_way.note(&of("a", 2)) > first);
        assert_eq!(on_their_way.all(), [of("a", 2)]);
        on_their_way.note(&of("b", 1));
        on_their_way.retain(|path| path == "b");
        assert_eq!(on_their_way.all(), [of("b", 1)]);
        on_their_way.remove("b");
        assert_eq!(on_their_way.all(), []);
    }
}
