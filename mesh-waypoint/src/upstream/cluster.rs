//! A port of a Service, or some of its endpoints: what is picked from. What is known of it outlives changes of the configuration.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use mesh_core::{
    NodeName, Snapshot, Speaks, Workload,
    l7::{BackendTarget, TrafficPolicy, traffic::Tls},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::{
    UpstreamError,
    balance::{self, Spread, Wish},
    connect::CONNECT_TIMEOUT,
    endpoint::{Endpoint, EndpointKey},
    names::{Answer, Name},
    parts::Parts,
    settled::{self, FoundEndpoint, Settled},
    state::{self, ClusterState, Count},
};
use crate::{
    inbound::Target,
    worker::{NumberedSnapshot, Worker},
};

/// What a cluster is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ClusterKey {
    /// A port of a Service, perhaps a subset's endpoints alone.
    Service {
        /// The full host name.
        hostname: Arc<str>,
        /// The Service's port.
        port: u16,
        /// The subset.
        subset: Option<Arc<str>>,
    },
    /// A workload's own address.
    Address(SocketAddr),
}

impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { hostname, port, subset: None } => write!(f, "{hostname}:{port}"),
            Self::Service { hostname, port, subset: Some(subset) } => write!(f, "{hostname}:{port} subset {subset}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl ClusterKey {
    /// The cluster of what a tunnel is for; none of a gateway's, which has rules instead.
    pub(crate) fn of_target(target: &Target) -> Option<Self> {
        match target {
            Target::Service(service, port) => {
                Some(Self::Service { hostname: service.hostname.clone(), port: *port, subset: None })
            }
            Target::Workload(address) => Some(Self::Address(*address)),
            Target::Gateway(_) => None,
        }
    }

    /// The cluster of what a rule names; where it says no port, at `port`, the one that was asked for.
    ///
    /// # Errors
    /// What the rule names is not there: the status to answer with, and why.
    pub(crate) fn of_backend(target: &BackendTarget, port: u16) -> Result<Self, (u16, &str)> {
        match target {
            BackendTarget::Service { hostname, port: own, subset } => {
                Ok(Self::Service { hostname: hostname.clone(), port: own.unwrap_or(port), subset: subset.clone() })
            }
            BackendTarget::Unresolved { status, reason } => Err((*status, reason)),
        }
    }
}

/// This thread's clusters.
#[derive(Default)]
pub(crate) struct Upstreams {
    clusters: RefCell<HashMap<ClusterKey, Rc<Cluster>>>,
}

impl Upstreams {
    /// Closes connections that nobody has used for long.
    pub(crate) fn sweep(&self) {
        for cluster in self.clusters.borrow().values() {
            for endpoint in cluster.endpoints.borrow().iter() {
                endpoint.lines.sweep(&cluster.policy.borrow());
            }
        }
    }

    /// Looks after the requests that are under way: where an endpoint's machine acknowledges nothing of them, and there is another
    /// endpoint, their connections are given up, and it is passed by.
    pub(crate) fn look(&self, worker: &Worker) {
        let now = Instant::now();
        for cluster in self.clusters.borrow().values() {
            for endpoint in cluster.endpoints.borrow().iter() {
                if endpoint.lines.look(now, || cluster.may_pass_by(endpoint, &[])) {
                    endpoint.state.lose();
                    cluster.pass_by(worker, endpoint);
                }
                if endpoint.lines.let_go_of_lost() {
                    cluster.freed.notify_waiters();
                }
            }
        }
    }
}

/// A cluster, as this thread has it.
pub(crate) struct Cluster {
    /// What it is called.
    pub(crate) key: ClusterKey,
    /// What all threads know of it.
    pub(crate) state: Arc<ClusterState>,
    endpoints: RefCell<Rc<[Rc<Endpoint>]>>,
    policy: RefCell<Rc<TrafficPolicy>>,
    refusal: RefCell<Option<Box<mesh_core::Refusal>>>,
    /// What the Service's port is declared to speak.
    speaks: Cell<Speaks>,
    /// The number of the snapshot that it was made of.
    made_of: Cell<u64>,
    turn: Cell<usize>,
    /// Names that DNS has addresses of, with what it last said.
    names: RefCell<Vec<Followed>>,
    /// Whether its endpoints have different shares.
    is_weighted: Cell<bool>,
    /// How localities divide them.
    parts: RefCell<Parts>,
    /// Whether clients get the endpoints of their own node alone.
    node_only: Cell<bool>,
    /// Whether a request goes to the address that its client asked for.
    as_asked: Cell<bool>,
    /// Told when a connection of this thread is free again.
    pub(crate) freed: Notify,
}

impl Cluster {
    /// The cluster of that name, up to date.
    ///
    /// # Errors
    /// There is nothing, or a DestinationRule asks for what is not done here.
    pub(crate) fn get(worker: &Worker, key: &ClusterKey) -> Result<Rc<Self>, UpstreamError> {
        let NumberedSnapshot { snapshot, number } = worker.numbered_snapshot();
        let clusters = &worker.upstreams.clusters;
        let known = clusters.borrow().get(key).cloned();
        let cluster = known.unwrap_or_else(|| {
            let new = Rc::new(Self {
                key: key.clone(),
                state: worker.shared.clusters.state(key),
                endpoints: RefCell::new(Rc::new([])),
                policy: RefCell::default(),
                refusal: RefCell::default(),
                speaks: Cell::default(),
                made_of: Cell::new(0),
                turn: Cell::new(fastrand::usize(..1 << 16)),
                names: RefCell::default(),
                is_weighted: Cell::default(),
                parts: RefCell::default(),
                node_only: Cell::default(),
                as_asked: Cell::default(),
                freed: Notify::new(),
            });
            clusters.borrow_mut().insert(key.clone(), new.clone());
            new
        });
        if (cluster.made_of.get() != number || cluster.is_renamed()) && cluster.renew(worker, &snapshot).is_none() {
            clusters.borrow_mut().remove(key);
            return Err(UpstreamError::NoCluster(key.clone()));
        }
        cluster.made_of.set(number);
        match &*cluster.refusal.borrow() {
            Some(refusal) => Err(UpstreamError::Refused(refusal.clone())),
            None => Ok(cluster.clone()),
        }
    }

    /// The same once DNS has answered where it has to be asked; whoever asks first waits a while.
    ///
    /// # Errors
    /// As [`Cluster::get`].
    pub(crate) async fn ready(worker: &Worker, key: &ClusterKey) -> Result<Rc<Self>, UpstreamError> {
        let cluster = Self::get(worker, key)?;
        let mut unanswered: Vec<_> = {
            let names = cluster.names.borrow();
            let receivers = names.iter().map(|followed| &followed.answer);
            receivers.filter(|answer| answer.borrow().is_none()).cloned().collect()
        };
        if unanswered.is_empty() {
            return Ok(cluster);
        }
        let answered = async {
            for answer in &mut unanswered {
                // A sender that is gone says nothing any more.
                let _ = answer.wait_for(Option::is_some).await;
            }
        };
        timeout(CONNECT_TIMEOUT, answered).await.map_err(|_| UpstreamError::ConnectTimeout)?;
        Self::get(worker, key)
    }

    /// Whether DNS has said something else.
    fn is_renamed(&self) -> bool {
        self.names.borrow().iter().any(|followed| followed.answer.has_changed().unwrap_or(false))
    }

    /// How requests are spread over it, and what is kept from it.
    pub(crate) fn policy(&self) -> Rc<TrafficPolicy> {
        self.policy.borrow().clone()
    }

    /// The node whose endpoints a client gets, where it gets no others: its own, or that of this pod for one who is on none.
    pub(crate) fn only_node(&self, worker: &Worker, client: Option<&Workload>) -> Option<NodeName> {
        if !self.node_only.get() {
            return None;
        }
        let snapshot = worker.snapshot();
        let own = || worker.shared.own.workload(&snapshot).map(|own| own.node.clone());
        client.map(|client| client.node.clone()).or_else(own)
    }

    /// A place among its connections, unless there are as many as the policy lets there be (`maxConnections`).
    pub(crate) fn room_for_connection(&self, policy: &TrafficPolicy) -> Option<Count<ClusterState>> {
        let most = policy.pool.as_ref().and_then(|pool| pool.max_connections);
        Count::within(&self.state, most, |state| &state.connections)
    }

    /// Whether TLS is begun to its endpoints.
    pub(crate) fn begins_tls(&self) -> bool {
        matches!(self.policy.borrow().tls, Some(Tls::Originate(_)))
    }

    /// What its endpoints are declared to speak.
    pub(crate) fn speaks(&self) -> Speaks {
        self.speaks.get()
    }

    /// Notes what an endpoint answered, or that it could not be connected; it is left out for a time where that was once too often.
    pub(crate) fn note(&self, worker: &Worker, endpoint: &Endpoint, answer: state::Answer) {
        let policy = self.policy.borrow().clone();
        if self.state.note(&endpoint.state, answer, policy.outlier.as_ref()) {
            worker.shared.telemetry.own.ejections.inc();
            tracing::info!(cluster = %self.key, endpoint = %endpoint.address(), "endpoint ejected");
        }
    }

    /// Has an endpoint passed by that does not answer.
    pub(super) fn pass_by(&self, worker: &Worker, endpoint: &Endpoint) {
        if self.state.pass_by(&endpoint.state) {
            worker.shared.telemetry.own.passed_by.inc();
            tracing::info!(cluster = %self.key, endpoint = %endpoint.address(), "endpoint passed by: it does not answer");
        }
    }

    /// Whether an endpoint that does not answer may be passed by: there is another, and no more than half are. Where most do not
    /// answer it is our own network that fails.
    pub(super) fn may_pass_by(&self, this: &Endpoint, avoid: &[SocketAddr]) -> bool {
        let now = self.state.now();
        let endpoints = self.endpoints.borrow();
        let others = endpoints.iter().filter(|other| other.address() != this.address());
        let passed_by = others.filter(|other| other.state.reach.is_passed_by(now)).count();
        (passed_by + 1) * 2 <= endpoints.len() && self.is_another(&endpoints, now, this, avoid)
    }

    /// Whether a request that was with these can go to another endpoint than this one, of which nothing bad is known.
    pub(crate) fn has_another(&self, this: &Endpoint, avoid: &[SocketAddr]) -> bool {
        self.is_another(&self.endpoints.borrow(), self.state.now(), this, avoid)
    }

    fn is_another(&self, endpoints: &[Rc<Endpoint>], now: u64, this: &Endpoint, avoid: &[SocketAddr]) -> bool {
        let of_same_node = |other: &Endpoint| {
            let node = this.workload.as_ref().map(|workload| &workload.node);
            !self.node_only.get() || node.is_some_and(|node| other.is_on(node))
        };
        let may_serve = |other: &Rc<Endpoint>| {
            let address = other.address();
            address != this.address()
                && !avoid.contains(&address)
                && !other.state.is_left_out(now)
                && of_same_node(other)
        };
        !self.as_asked.get() && endpoints.iter().any(may_serve)
    }

    /// An endpoint for a request.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn pick(&self, wish: &Wish) -> Result<Rc<Endpoint>, UpstreamError> {
        let now = self.state.now();
        let picked = self.choose(wish, now).ok_or(UpstreamError::NoEndpoint)?;
        if self.state.has_left_out(now) {
            picked.state.reach.picked(now);
        }
        Ok(picked)
    }

    fn choose(&self, wish: &Wish, now: u64) -> Option<Rc<Endpoint>> {
        let (endpoints, policy) = (self.endpoints.borrow(), self.policy.borrow());
        let asked = wish.asked.filter(|_| self.as_asked.get());
        if let Some(endpoint) = asked.and_then(|asked| endpoints.iter().find(|endpoint| endpoint.address() == asked)) {
            return Some(endpoint.clone());
        }
        let is_kept = |endpoint: &&Rc<Endpoint>| {
            let address = endpoint.address();
            wish.kept == Some(address) && !wish.avoid.contains(&address) && !endpoint.state.is_left_out(now)
        };
        if let Some(endpoint) = wish.kept.and_then(|_| endpoints.iter().find(is_kept)) {
            return Some(endpoint.clone());
        }
        let mut turn = self.turn.get();
        let spread = Spread { policy: &policy, is_weighted: self.is_weighted.get() };
        let of_node: Vec<_>;
        let chosen = match &wish.node {
            Some(node) if self.node_only.get() => {
                of_node = endpoints.iter().filter(|endpoint| endpoint.is_on(node)).cloned().collect();
                &of_node
            }
            _ => self.parts.borrow().choose(&endpoints, wish, now),
        };
        let picked = balance::pick(chosen, spread, wish, &mut turn, now);
        self.turn.set(turn);
        picked
    }

    /// Takes over what a snapshot says, and keeps the endpoints that stay. None when there is no such cluster any more.
    fn renew(&self, worker: &Worker, snapshot: &Snapshot) -> Option<()> {
        self.follow_names(worker, snapshot);
        let answers = |name: &Arc<str>| {
            let names = self.names.borrow();
            names
                .iter()
                .find(|followed| followed.name.text() == name)
                .and_then(|followed| followed.answer.borrow().clone())
        };
        let settled = Settled::of(&self.key, snapshot, &worker.shared.own, &answers)?;
        self.speaks.set(settled.speaks);
        self.as_asked.set(settled.as_asked);
        self.node_only.set(settled.node_only);
        self.policy.replace(Rc::new(settled.policy));
        match settled.endpoints {
            Ok(found) => {
                let parts: Vec<u32> = found.iter().map(|found| found.part).collect();
                self.parts.replace(Parts::new(&parts, settled.shares));
                self.replace(found);
                self.refusal.replace(None);
            }
            Err(refusal) => drop(self.refusal.replace(Some(Box::new(refusal)))),
        }
        Some(())
    }

    /// Follows the names of a port of a ServiceEntry's host, and no others; all that is answered so far counts as seen.
    fn follow_names(&self, worker: &Worker, snapshot: &Snapshot) {
        let follow = |name: &Arc<str>| {
            let name = worker.shared.names.name(name);
            Followed { answer: name.subscribe(), name }
        };
        let followed = settled::names_of(&self.key, snapshot).map(follow).collect();
        self.names.replace(followed);
    }

    fn replace(&self, found: Vec<FoundEndpoint>) {
        let old = self.endpoints.borrow().clone();
        let old: HashMap<&EndpointKey, &Rc<Endpoint>> = old.iter().map(|endpoint| (&endpoint.key, endpoint)).collect();
        let endpoints = found.into_iter().map(|found| {
            let key = found.key();
            let kept = old.get(&key).map(|kept| Rc::clone(kept));
            let endpoint = kept.unwrap_or_else(|| Endpoint::new(key, found.workload, &self.state));
            endpoint.weight.set(found.weight);
            endpoint
        });
        let endpoints: Rc<[Rc<Endpoint>]> = endpoints.collect();
        self.is_weighted.set(endpoints.windows(2).any(|pair| pair[0].weight != pair[1].weight));
        self.endpoints.replace(endpoints);
    }
}

/// A name, and what DNS says of it.
struct Followed {
    answer: watch::Receiver<Answer>,
    name: Arc<Name>,
}
