//! Who is told, and how far each is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use mesh_ca::Caller;
use mesh_core::lock::UnpoisonedMutex as _;

use crate::in_force::InForce;
use crate::proto::Node;
use crate::session::Session;
use crate::subscription::{Delivery, Subscription};
use crate::table::{OBJECT_TYPE, Table};

/// Streams at once.
const MAX_STREAMS: usize = 20_000;
/// Streams of one caller at once: a node's daemon, its successor, and what of theirs has not been found dead yet.
const MAX_STREAMS_A_NODE: usize = 8;
/// Streams of the replicas of one Gateway, which have one account.
const MAX_STREAMS_A_PROXY: usize = 512;

/// One who is told.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// Whose token it has shown.
    pub caller: Caller,
    /// What it says of itself.
    pub node: Node,
    /// Since when.
    pub since: Instant,
    /// How far it is with our own resources; none for one who wants others.
    pub told: Option<Delivery>,
    /// Our own resources as they are in force at it.
    in_force: Option<Arc<Table>>,
}

/// All who are told by this process. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Subscribers(Arc<Mutex<Streams>>);

#[derive(Debug, Default)]
struct Streams {
    last: u64,
    known: BTreeMap<u64, Subscriber>,
}

impl Subscribers {
    /// Who is told now.
    #[must_use]
    pub fn all(&self) -> Vec<Subscriber> {
        self.0.lock_unpoisoned().known.values().cloned().collect()
    }

    /// What is in force at those who want our own resources.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        let mut in_force = InForce::default();
        for subscriber in self.0.lock_unpoisoned().known.values().filter(|subscriber| subscriber.told.is_some()) {
            in_force.add(subscriber.in_force.as_ref());
        }
        in_force
    }

    /// Gives a caller a place; none where there are too many.
    pub(crate) fn add(&self, caller: Caller) -> Option<Place> {
        let mut streams = self.0.lock_unpoisoned();
        let own = streams.known.values().filter(|other| other.caller == caller).count();
        let most = match caller {
            Caller::Node(_) => MAX_STREAMS_A_NODE,
            Caller::Proxy(_) => MAX_STREAMS_A_PROXY,
        };
        if streams.known.len() >= MAX_STREAMS || own >= most {
            return None;
        }
        streams.last += 1;
        let number = streams.last;
        let subscriber =
            Subscriber { caller, node: Node::default(), since: Instant::now(), told: None, in_force: None };
        streams.known.insert(number, subscriber);
        Some(Place { number, of: self.clone() })
    }
}

/// A place among those who are told; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    of: Subscribers,
}

impl Place {
    /// Notes how far the subscriber is.
    pub(crate) fn note(&self, session: &Session) {
        let subscription = session.subscription(OBJECT_TYPE);
        if let Some(subscriber) = self.of.0.lock_unpoisoned().known.get_mut(&self.number) {
            subscriber.told = subscription.map(|subscription| subscription.told().clone());
            subscriber.in_force = subscription.and_then(Subscription::in_force).cloned();
        }
    }

    /// Notes what it says of itself.
    pub(crate) fn introduce(&self, node: &Node) {
        let cut = |text: &str| text.chars().take(300).collect::<String>();
        let node = Node {
            id: cut(&node.id),
            user_agent_name: cut(&node.user_agent_name),
            user_agent_version: cut(&node.user_agent_version),
        };
        if let Some(subscriber) = self.of.0.lock_unpoisoned().known.get_mut(&self.number) {
            subscriber.node = node;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.0.lock_unpoisoned().known.remove(&self.number);
    }
}
