//! The whole protocol without a network: whatever is changed, lost, rejected or answered late, a subscriber comes to have what
//! is served, and its snapshot is that of one who watches.
#![allow(clippy::unwrap_used)]

mod control;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_config::{Config, LiveObjects, ObjectName, Options};
use mesh_xds::proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use mesh_xds::{
    Body, OBJECT_TYPE, Replica, Resource, ResponseSize, Session, Subscription, Table, Update, Version, apply,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use self::control::Control;

const SMALL: ResponseSize = ResponseSize { octets: 1 << 20, resources: 3 };

fn node() -> Node {
    Node { id: "a".to_owned(), ..Node::default() }
}

/// A server of one table, and a subscriber whose stream may break at any time.
struct Pair {
    table: Table,
    served: Arc<Table>,
    subscription: Option<Subscription>,
    replica: Replica,
    has: BTreeMap<String, Vec<u8>>,
    /// Sent and not delivered; delivered and not answered.
    response: Option<DeltaDiscoveryResponse>,
    answer: Option<DeltaDiscoveryRequest>,
}

impl Pair {
    fn new() -> Self {
        Self {
            table: Table::default(),
            served: Arc::default(),
            subscription: None,
            replica: Replica::new(OBJECT_TYPE, node()),
            has: BTreeMap::new(),
            response: None,
            answer: None,
        }
    }

    fn change(&mut self, name: u8, content: Option<u8>) {
        let name = format!("n{name:02}");
        match content {
            Some(content) => self.table.put(Resource::new(&name, Body::Message(vec![content].into()))),
            None => self.table.remove(&name),
        }
        let generation = self.served.version().generation + 1;
        self.served = Arc::new(self.table.clone().at(generation));
    }

    fn connect(&mut self) {
        (self.response, self.answer) = (None, None);
        let mut subscription = Subscription::new(OBJECT_TYPE, SMALL);
        subscription.take(&self.replica.first_request(), &self.served).unwrap();
        self.subscription = Some(subscription);
    }

    /// Sends what there is to send; at most one response is on its way.
    fn send(&mut self) {
        let Some(subscription) = &mut self.subscription else { return };
        if let Some(response) = subscription.next(&self.served) {
            assert!(self.response.is_none() && self.answer.is_none(), "two responses are on their way");
            assert!(response.resources.len() + response.removed_resources.len() <= SMALL.resources);
            self.response = Some(response);
        }
    }

    /// The subscriber takes no content that is 0.
    fn deliver(&mut self) {
        let Some(response) = self.response.take() else { return };
        let has = &mut self.has;
        self.answer = Some(self.replica.take(&response, |update| match update {
            Update::Put { message: [0], .. } => Err("0 is nothing".to_owned()),
            Update::Put { name, message } => {
                has.insert(name.to_owned(), message.to_vec());
                Ok(())
            }
            Update::Remove { name } => {
                has.remove(name);
                Ok(())
            }
        }));
    }

    fn answer(&mut self) {
        if let (Some(subscription), Some(answer)) = (&mut self.subscription, self.answer.take()) {
            subscription.take(&answer, &self.served).unwrap();
        }
    }

    /// Lets everything that is under way arrive.
    fn settle(&mut self) {
        if self.subscription.is_none() {
            self.connect();
        }
        for _ in 0..1000 {
            self.answer();
            self.deliver();
            self.answer();
            self.send();
            if self.response.is_none() {
                return;
            }
        }
        panic!("it never settles");
    }

    fn served(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut reader = Subscription::new(OBJECT_TYPE, ResponseSize::default());
        reader.take(&Replica::new(OBJECT_TYPE, node()).first_request(), &self.served).unwrap();
        for resource in reader.next(&self.served).unwrap().resources {
            all.insert(resource.name, resource.resource.unwrap().value.to_vec());
        }
        all
    }
}

#[derive(Debug, Clone)]
enum Step {
    Change(u8, Option<u8>),
    Connect,
    Send,
    Deliver,
    Answer,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..20u8, prop::option::weighted(0.8, 0..5u8)).prop_map(|(name, content)| Step::Change(name, content)),
        1 => Just(Step::Connect),
        4 => Just(Step::Send),
        4 => Just(Step::Deliver),
        4 => Just(Step::Answer),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_subscriber_comes_to_have_what_is_served(steps in prop::collection::vec(step(), 0..120)) {
        let mut pair = Pair::new();
        for step in steps {
            match step {
                Step::Change(name, content) => pair.change(name, content),
                Step::Connect => pair.connect(),
                Step::Send => pair.send(),
                Step::Deliver => pair.deliver(),
                Step::Answer => pair.answer(),
            }
        }
        pair.settle();
        let served = pair.served();
        // What cannot be taken is there as it last was, or not at all; all else is as it is served.
        let bad: Vec<_> = served.iter().filter(|(_, content)| **content == [0]).map(|(name, _)| name.clone()).collect();
        let without = |all: &BTreeMap<String, Vec<u8>>| {
            all.iter().filter(|(name, _)| !bad.contains(name)).map(|(name, it)| (name.clone(), it.clone())).collect::<Vec<_>>()
        };
        prop_assert_eq!(without(&pair.has), without(&served));
        let told = pair.subscription.as_ref().unwrap().told().clone();
        prop_assert_eq!(told.sent, Some(pair.served.version()));
        prop_assert_eq!(told.acknowledged == told.sent, bad.is_empty(), "{:?}", told);
        prop_assert_eq!(told.rejected.is_some(), !bad.is_empty());
        prop_assert_eq!(pair.replica.rejected().len(), bad.len());
        // When the bad ones are mended, with something else that changes, everything is there.
        for name in bad {
            pair.change(name[1..].parse().unwrap(), Some(7));
        }
        pair.change(99, Some(1));
        pair.settle();
        prop_assert_eq!(&pair.has, &pair.served());
        prop_assert_eq!(pair.replica.complete(), Some(pair.served.version()));
        let told = pair.subscription.as_ref().unwrap().told();
        prop_assert_eq!(told.acknowledged, Some(pair.served.version()));
        prop_assert_eq!(&told.rejected, &None);
        let in_force = pair.subscription.as_ref().unwrap().in_force();
        prop_assert_eq!(in_force.map(|state| state.version()), told.acknowledged);
        // And nothing more is told.
        pair.send();
        prop_assert!(pair.response.is_none());
    }
}

#[test]
fn a_subscriber_that_comes_back_is_told_what_differs_alone() {
    let mut pair = Pair::new();
    for name in 0..10 {
        pair.change(name, Some(1));
    }
    pair.settle();
    pair.change(3, Some(2));
    pair.change(4, None);
    pair.connect();
    pair.send();
    let response = pair.response.as_ref().unwrap();
    let names: Vec<_> = response.resources.iter().map(|resource| &*resource.name).collect();
    assert_eq!((names, &*response.removed_resources), (vec!["n03"], &["n04".to_owned()][..]));
    assert!(!response.system_version_info.is_empty(), "that is all of it");
    pair.settle();
    // Where nothing differs, that is told: the subscriber knows that it has everything.
    pair.connect();
    pair.send();
    let response = pair.response.as_ref().unwrap();
    assert!(response.resources.is_empty() && response.removed_resources.is_empty());
    assert_eq!(response.system_version_info, pair.served.version().to_string());
}

#[test]
fn an_old_answer_is_no_answer() {
    let mut pair = Pair::new();
    pair.change(1, Some(1));
    pair.connect();
    pair.send();
    pair.deliver();
    let mut old = pair.answer.clone().unwrap();
    old.response_nonce = "17".to_owned();
    let subscription = pair.subscription.as_mut().unwrap();
    subscription.take(&old, &pair.served).unwrap();
    assert_eq!(subscription.told().acknowledged, None);
    pair.answer();
    assert_eq!(pair.subscription.as_ref().unwrap().told().acknowledged, Some(pair.served.version()));
}

#[test]
fn single_names_are_told_alone_and_of_those_that_are_not_there_it_is_said() {
    let mut pair = Pair::new();
    for name in 0..8 {
        pair.change(name, Some(1));
    }
    let mut subscription = Subscription::new(OBJECT_TYPE, ResponseSize::default());
    let ask = |subscribe: &[&str], unsubscribe: &[&str], nonce: &str| DeltaDiscoveryRequest {
        type_url: OBJECT_TYPE.to_owned(),
        resource_names_subscribe: subscribe.iter().map(ToString::to_string).collect(),
        resource_names_unsubscribe: unsubscribe.iter().map(ToString::to_string).collect(),
        response_nonce: nonce.to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    let names = |response: Option<DeltaDiscoveryResponse>| {
        let response = response.unwrap();
        let names: Vec<_> = response.resources.iter().map(|resource| resource.name.clone()).collect();
        (names, response.removed_resources)
    };
    subscription.take(&ask(&["n01", "none"], &[], ""), &pair.served).unwrap();
    assert_eq!(names(subscription.next(&pair.served)), (vec!["n01".to_owned()], vec!["none".to_owned()]));
    // One that is asked for again is told again; others that change are not.
    subscription.take(&ask(&["n01"], &[], "1"), &pair.served).unwrap();
    assert_eq!(names(subscription.next(&pair.served)), (vec!["n01".to_owned()], vec![]));
    subscription.take(&ask(&[], &[], "2"), &pair.served).unwrap();
    pair.change(5, Some(2));
    assert_eq!(subscription.next(&pair.served), None);
    pair.change(1, Some(2));
    assert_eq!(names(subscription.next(&pair.served)), (vec!["n01".to_owned()], vec![]));
    subscription.take(&ask(&[], &["n01"], "3"), &pair.served).unwrap();
    pair.change(1, Some(3));
    assert_eq!(subscription.next(&pair.served), None);
    // Who subscribes to all and takes that back at once wants nothing for now (as ztunnel does when it asks on demand).
    let mut subscription = Subscription::new(OBJECT_TYPE, ResponseSize::default());
    subscription.take(&ask(&["*"], &["*"], ""), &pair.served).unwrap();
    assert_eq!(names(subscription.next(&pair.served)), (vec![], vec![]));
    // And all may be asked for later.
    subscription.take(&ask(&["*"], &[], "1"), &pair.served).unwrap();
    assert_eq!(names(subscription.next(&pair.served)).0.len(), 8);
}

fn object() -> impl Strategy<Value = (ObjectName, Option<Value>)> {
    let path = |path: String| ObjectName::of_path(&path).unwrap();
    let pod = (0..6u8, 0..4u8, prop::option::weighted(0.8, any::<bool>())).prop_map(move |(name, address, ready)| {
        let value = ready.map(|ready| {
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("p{name}"), "namespace": "shop", "uid": format!("u{name}"),
                             "labels": {"app": format!("a{}", name % 2)}},
                "spec": {"nodeName": "a", "containers": [{"name": "c"}]},
                "status": {"podIP": format!("10.0.0.{}", address + 1),
                           "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
            })
        });
        (path(format!("/Pod/shop/p{name}")), value)
    });
    let service = (0..3u8, prop::option::weighted(0.8, 80..83u16)).prop_map(move |(name, port)| {
        let value = port.map(|port| {
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": format!("s{name}"), "namespace": "shop"},
                "spec": {"clusterIP": format!("10.96.0.{name}"), "ports": [{"port": port}]},
            })
        });
        (path(format!("/Service/shop/s{name}")), value)
    });
    // Policies break, and are not taken away: who has missed that one went has its last good version still.
    let policy = (0..3u8, prop::sample::select(vec!["ALLOW", "DENY", "PERHAPS"])).prop_map(move |(name, action)| {
        let value = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": format!("z{name}"), "namespace": "shop"},
            "spec": {"action": action, "rules": [{"to": [{"operation": {"ports": ["80"]}}]}]},
        });
        (path(format!("security.istio.io/AuthorizationPolicy/shop/z{name}")), Some(value))
    });
    prop_oneof![4 => pod, 2 => service, 2 => policy]
}

#[derive(Debug, Clone)]
enum Turn {
    /// The cluster changes; the first replica hears of it, and the other as well, or later.
    Change(Vec<(ObjectName, Option<Value>)>, bool),
    /// The node's stream ends, and it goes on at a replica.
    Move(bool),
    /// Messages pass.
    Exchange(u8),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        3 => (prop::collection::vec(object(), 1..6), any::<bool>()).prop_map(|(changes, both)| Turn::Change(changes, both)),
        1 => any::<bool>().prop_map(Turn::Move),
        4 => (1..4u8).prop_map(Turn::Exchange),
    ]
}

/// A node that takes its configuration from either of two replicas.
struct Follower {
    replica: Replica,
    objects: LiveObjects,
    session: Session,
    config: Option<Arc<Config>>,
}

impl Follower {
    fn connect(&mut self, control: &Control) {
        self.session = Session::new(SMALL);
        self.session.take(&self.replica.first_request(), &control.state).unwrap();
    }

    /// One response, taken and answered. True when there was one.
    fn exchange(&mut self, control: &Control) -> bool {
        let Some(response) = self.session.next(&control.state) else { return false };
        let answer = self.replica.take(&response, |update| apply(&mut self.objects, update));
        assert_eq!(answer.error_detail, None);
        if !response.system_version_info.is_empty() {
            self.config = Some(self.objects.publish());
        }
        self.session.take(&answer, &control.state).unwrap();
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_snapshot_by_xds_is_the_snapshot_by_watching(turns in prop::collection::vec(turn(), 1..40)) {
        let mut controls = [Control::new(), Control::new()];
        let mut late: Vec<(ObjectName, Option<Value>)> = Vec::new();
        let mut watcher = LiveObjects::new(Options::default());
        let mut at = 0;
        let mut follower = Follower {
            replica: Replica::new(OBJECT_TYPE, node()),
            objects: LiveObjects::new(Options::default()),
            session: Session::default(),
            config: None,
        };
        follower.connect(&controls[0]);
        for turn in turns {
            match turn {
                Turn::Change(changes, both) => {
                    controls[0].learn(&changes);
                    late.extend(changes.iter().cloned());
                    if both {
                        controls[1].learn(&std::mem::take(&mut late));
                    }
                    for (name, value) in changes {
                        match value {
                            Some(value) => watcher.apply(name, value),
                            None => watcher.remove(&name),
                        }
                    }
                }
                Turn::Move(second) => {
                    at = usize::from(second);
                    follower.connect(&controls[at]);
                }
                Turn::Exchange(count) => {
                    for _ in 0..count {
                        follower.exchange(&controls[at]);
                    }
                }
            }
        }
        controls[1].learn(&late);
        while follower.exchange(&controls[at]) {}
        let (by_xds, by_watching) = (follower.config.clone().unwrap(), watcher.publish());
        prop_assert_eq!(&by_xds.snapshot, &by_watching.snapshot);
        prop_assert_eq!(&by_xds.findings, &by_watching.findings);
        // Replicas that know the same serve the same, whatever they have seen on the way.
        prop_assert_eq!(controls[0].state.version().digest, controls[1].state.version().digest);
        prop_assert_eq!(follower.replica.complete().unwrap().digest, controls[0].state.version().digest);
        // A move where nothing has changed is told nothing.
        follower.connect(&controls[1 - at]);
        let response = follower.session.next(&controls[1 - at].state).unwrap();
        prop_assert!(response.resources.is_empty() && response.removed_resources.is_empty(), "{response:?}");
    }
}

#[test]
fn versions_are_written_as_they_are_read() {
    let version = Version { generation: 17, digest: 0xc0ffee };
    assert_eq!(version.to_string(), "17-0000000000c0ffee");
    assert_eq!(version.to_string().parse(), Ok(version));
    for text in ["", "17", "-", "x-1", "1-x", "-1-1"] {
        text.parse::<Version>().expect_err(text);
    }
}
