//! A port of a Service, or some of its endpoints: what is picked from. What is known of it outlives changes of the configuration.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use mesh_core::{
    LabelSet, Protocol, Service, Snapshot, Speaks, Transport, Workload,
    l7::{BackendTarget, TrafficPolicy},
    policy::{ClientTlsRule, Selector},
    transport_to,
};
use tokio::sync::Notify;

use super::{
    UpstreamError,
    balance::{self, Wish},
    endpoint::{Endpoint, EndpointKey},
    state::ClusterState,
};
use crate::{inbound::Target, worker::Worker};

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
    /// The snapshot that it is of.
    generation: Cell<u64>,
    turn: Cell<usize>,
    /// Told when a connection of this thread is free again.
    pub(crate) freed: Notify,
}

impl Cluster {
    /// The cluster of that name, up to date.
    ///
    /// # Errors
    /// There is nothing, or a DestinationRule asks for what is not done here.
    pub(crate) fn get(worker: &Worker, key: &ClusterKey) -> Result<Rc<Self>, UpstreamError> {
        let (snapshot, generation) = worker.snapshot();
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
                generation: Cell::new(0),
                turn: Cell::new(fastrand::usize(..1 << 16)),
                freed: Notify::new(),
            });
            clusters.borrow_mut().insert(key.clone(), new.clone());
            new
        });
        if cluster.generation.get() != generation
            && cluster.renew(&snapshot, &worker.shared.own.gateway.namespace).is_none()
        {
            clusters.borrow_mut().remove(key);
            return Err(UpstreamError::NoCluster(key.clone()));
        }
        cluster.generation.set(generation);
        match &*cluster.refusal.borrow() {
            Some(refusal) => Err(UpstreamError::Refused(refusal.clone())),
            None => Ok(cluster.clone()),
        }
    }

    /// How requests are spread over it, and what is kept from it.
    pub(crate) fn policy(&self) -> Rc<TrafficPolicy> {
        self.policy.borrow().clone()
    }

    /// What its endpoints are declared to speak.
    pub(crate) fn speaks(&self) -> Speaks {
        self.speaks.get()
    }

    /// An endpoint for a request.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn pick(&self, wish: &Wish) -> Result<Rc<Endpoint>, UpstreamError> {
        let (endpoints, policy) = (self.endpoints.borrow(), self.policy.borrow());
        let mut turn = self.turn.get();
        let picked = balance::pick(&endpoints, &policy, wish, &mut turn, self.state.now());
        self.turn.set(turn);
        picked.ok_or(UpstreamError::NoEndpoint)
    }

    /// Takes over what a snapshot says, and keeps the endpoints that stay. None when there is no such cluster any more.
    fn renew(&self, snapshot: &Snapshot, own_namespace: &str) -> Option<()> {
        let settled = Settled::of(&self.key, snapshot, own_namespace)?;
        self.speaks.set(settled.speaks);
        self.policy.replace(Rc::new(settled.policy));
        match settled.endpoints {
            Ok(found) => {
                self.replace(found);
                self.refusal.replace(None);
            }
            Err(refusal) => drop(self.refusal.replace(Some(Box::new(refusal)))),
        }
        Some(())
    }

    fn replace(&self, found: Vec<Found>) {
        let old = self.endpoints.borrow().clone();
        let old: HashMap<&EndpointKey, &Rc<Endpoint>> = old.iter().map(|endpoint| (&endpoint.key, endpoint)).collect();
        let endpoints = found.into_iter().map(|(address, workload, transport)| {
            let key = EndpointKey::new(address, workload.as_deref(), &transport);
            let kept = old.get(&key).map(|kept| Rc::clone(kept));
            kept.unwrap_or_else(|| Endpoint::new(key, workload, &self.state))
        });
        let endpoints = endpoints.collect();
        self.endpoints.replace(endpoints);
    }
}

/// What a snapshot says of a cluster.
pub(super) struct Settled {
    speaks: Speaks,
    pub(super) policy: TrafficPolicy,
    pub(super) endpoints: Result<Vec<Found>, mesh_core::Refusal>,
}

impl Settled {
    /// None where there is no such cluster.
    pub(super) fn of(key: &ClusterKey, snapshot: &Snapshot, own_namespace: &str) -> Option<Self> {
        match key {
            ClusterKey::Address(address) => {
                let workload = snapshot.workload_by_address(address.ip())?;
                let transport = transport_to(snapshot, None, None, Some(workload));
                let endpoints = transport.map(|(transport, _)| vec![(*address, Some(workload.clone()), transport)]);
                Some(Self { speaks: Speaks::default(), policy: TrafficPolicy::default(), endpoints })
            }
            ClusterKey::Service { hostname, port, subset } => {
                let service = snapshot.service_by_hostname(hostname)?;
                let speaks = service.port(*port, Protocol::Tcp)?.speaks;
                let rule = rule_for(snapshot, own_namespace, service);
                let traffic = rule.map(|rule| &*rule.traffic);
                let labels = match subset {
                    None => None,
                    Some(subset) => traffic?.subsets.get(subset)?.labels.as_ref(),
                };
                let policy = traffic.map(|traffic| traffic.effective(subset.as_deref(), *port)).unwrap_or_default();
                Some(Self { speaks, policy, endpoints: endpoints_of(snapshot, service, *port, labels) })
            }
        }
    }
}

/// The DestinationRule about a Service, for a waypoint of that namespace.
fn rule_for<'a>(snapshot: &'a Snapshot, own_namespace: &str, service: &Service) -> Option<&'a Arc<ClientTlsRule>> {
    let nobody = LabelSet::default();
    snapshot.policies().client_tls_for(Some((own_namespace, &nobody)), &service.hostname, &service.namespace)
}

type Found = (SocketAddr, Option<Arc<Workload>>, Transport);

/// A Service's endpoints, of one family: where both are there, they are the same pods twice.
fn endpoints_of(
    snapshot: &Snapshot,
    service: &Arc<Service>,
    port: u16,
    labels: Option<&Selector>,
) -> Result<Vec<Found>, mesh_core::Refusal> {
    let all = service.port(port, Protocol::Tcp).map_or(&[][..], |port| &port.endpoints);
    let has_ipv4 = all.iter().any(|endpoint| endpoint.address.is_ipv4());
    let of_subset = |endpoint: &&mesh_core::Endpoint| {
        labels.is_none_or(|labels| endpoint.workload.as_ref().is_some_and(|workload| labels.selects(&workload.labels)))
    };
    let of_family = all.iter().filter(|endpoint| endpoint.address.is_ipv4() == has_ipv4).filter(of_subset);
    of_family
        .map(|endpoint| {
            let workload = endpoint.workload.clone();
            let (transport, _) = transport_to(snapshot, None, Some((service, port)), workload.as_deref())?;
            Ok((endpoint.address, workload, transport))
        })
        .collect()
}
