//! What is no HTTP: bytes, passed on as they come.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ::http::StatusCode;
use mesh_core::l7::{
    Backend, BackendTarget, Begun, ConnectionRule, ConnectionView, TrafficPolicy, split,
    traffic::{Algorithm, HashKey},
};
use mesh_transport::hbone::{ConnectRequest, TunnelStream};
use tokio::{
    io::copy_bidirectional,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::io::{InspectReader, InspectWriter};

use super::{Arrival, Target, admission, tcp_ledger::TcpLedger, watch::Watch};
use crate::{
    duplex::{Duplex, Prefixed},
    listeners,
    upstream::{
        self, Answer, Behalf, Cluster, ClusterKey, ClusterState, Count, Dial, Endpoint, EndpointState, Moves, Stream,
        UpstreamError, Wish, connect_within,
    },
    worker::Worker,
};

/// Connects the destination, and only then accepts the client's tunnel.
pub(super) async fn connect_first(worker: &Rc<Worker>, arrival: &Arrival, mut request: ConnectRequest) {
    let mut ledger = TcpLedger::open(worker, arrival);
    let connected = tokio::select! {
        connected = connect(worker, arrival) => connected,
        () = request.withdrawn() => return,
    };
    match connected {
        Ok(reached) => {
            ledger.reached(&reached.cluster, &reached.endpoint);
            let Ok(tunnel) = request.accept().await else { return };
            let watch = Watch::begin(worker, arrival, reached.cluster.clone(), reached.endpoint.clone());
            relay(&ledger, watch.of(TunnelStream::from(tunnel)), reached).await;
        }
        Err(error) => {
            ledger.refused(&error);
            let denied = matches!(error, UpstreamError::Denied(_));
            request.refuse(if denied { StatusCode::UNAUTHORIZED } else { StatusCode::SERVICE_UNAVAILABLE }).await;
        }
    }
}

/// The rules of VirtualServices for such connections, where there are any.
fn rules(worker: &Worker, arrival: &Arrival) -> Option<Arc<[ConnectionRule]>> {
    let Target::Service(service, _) = &arrival.target else { return None };
    let snapshot = worker.snapshot();
    let clients = arrival.client.workload.as_ref().map(|workload| &*workload.namespace);
    snapshot.l7().connection_rules(clients, &service.hostname).cloned()
}

/// What such rules see of a connection.
fn view<'a>(arrival: &'a Arrival, begun: Begun<'a>) -> ConnectionView<'a> {
    let address = arrival.local().map(|address| address.ip());
    ConnectionView { port: arrival.target.port(), address, client: arrival.client.workload.as_deref(), begun }
}

/// Whether the client's first words have to be known before it is clear where it goes.
pub(super) fn asks_for_tls(worker: &Worker, arrival: &Arrival) -> bool {
    let rules = rules(worker, arrival);
    rules.is_some_and(|rules| rules.iter().any(|rule| rule.asks_for_tls(view(arrival, Begun::Other))))
}

/// Where a connection goes that begins so: by the first rule that is for it, else to where it was sent.
fn destination(
    rules: Option<&[ConnectionRule]>,
    arrival: &Arrival,
    begun: Begun<'_>,
) -> Result<Option<ClusterKey>, UpstreamError> {
    let view = view(arrival, begun);
    match rules.and_then(|rules| rules.iter().find(|rule| rule.is_for(view))) {
        Some(rule) => chosen(&rule.backends, Some(view.port)),
        None => Ok(ClusterKey::of_target(&arrival.target)),
    }
}

/// One of the destinations by weight; one that names no port has the one that was asked for.
fn chosen(backends: &[Backend], asked: Option<u16>) -> Result<Option<ClusterKey>, UpstreamError> {
    match split::pick(backends, fastrand::u64(..)).map(|backend| &backend.target) {
        Some(BackendTarget::Service { hostname, port, subset }) => Ok(port.or(asked).map(|port| ClusterKey::Service {
            hostname: hostname.clone(),
            port,
            subset: subset.clone(),
        })),
        Some(BackendTarget::Unresolved { reason, .. }) => Err(UpstreamError::Connect(reason.to_string())),
        None => Ok(None),
    }
}

/// Carries what a client has begun to say already, or will say before its server does.
pub(super) async fn carry(worker: &Rc<Worker>, arrival: &Arrival, mut stream: impl Duplex) {
    let rules = rules(worker, arrival);
    let asks = |rule: &ConnectionRule| rule.asks_for_tls(view(arrival, Begun::Other));
    let (server, read) = match &rules {
        Some(rules) if rules.iter().any(asks) => listeners::look(&mut stream).await,
        _ => Default::default(),
    };
    let begun = server.as_ref().map_or(Begun::Other, |server| Begun::Tls(server.as_deref()));
    let key = destination(rules.as_deref(), arrival, begun);
    carry_to(worker, arrival, Prefixed::new(read, stream), key).await;
}

/// The same to one of several destinations, by weight; none where no route leads anywhere.
pub(crate) async fn carry_by(
    worker: &Rc<Worker>,
    arrival: &Arrival,
    stream: impl Duplex,
    backends: Option<&[Backend]>,
) {
    let Some(backends) = backends else { return TcpLedger::open(worker, arrival).unrouted() };
    carry_to(worker, arrival, stream, chosen(backends, None)).await;
}

async fn carry_to(
    worker: &Rc<Worker>,
    arrival: &Arrival,
    stream: impl Duplex,
    key: Result<Option<ClusterKey>, UpstreamError>,
) {
    let mut ledger = TcpLedger::open(worker, arrival);
    let connected = match key {
        Ok(key) => connect_to(worker, arrival, key.as_ref()).await,
        Err(error) => Err(error),
    };
    match connected {
        Ok(reached) => {
            ledger.reached(&reached.cluster, &reached.endpoint);
            relay(&ledger, stream, reached).await;
        }
        Err(error) => ledger.refused(&error),
    }
}

/// A destination that is connected.
struct Reached {
    cluster: Rc<Cluster>,
    endpoint: Rc<Endpoint>,
    stream: Stream,
    /// Its places among the cluster's connections, and the endpoint's.
    counted: (Count<ClusterState>, Count<EndpointState>),
}

async fn connect(worker: &Rc<Worker>, arrival: &Arrival) -> Result<Reached, UpstreamError> {
    let key = destination(rules(worker, arrival).as_deref(), arrival, Begun::Other)?;
    connect_to(worker, arrival, key.as_ref()).await
}

async fn connect_to(
    worker: &Rc<Worker>,
    arrival: &Arrival,
    key: Option<&ClusterKey>,
) -> Result<Reached, UpstreamError> {
    admission::of_connection(worker, arrival).map_err(Box::new)?;
    let cluster = Cluster::ready(worker, key.ok_or(UpstreamError::NoEndpoint)?).await?;
    let node = cluster.only_node(worker, arrival.client.workload.as_deref());
    let policy = cluster.policy();
    let mut wish = Wish { asked: arrival.asked, hash: hash(&policy, arrival), node, ..Wish::default() };
    let mut moves = Moves::default();
    loop {
        let endpoint = cluster.pick(&wish)?;
        let reached = dial(worker, arrival, (cluster.clone(), endpoint.clone()), &wish.avoid).await;
        let is_unanswered = matches!(reached, Err(UpstreamError::Unanswered(_)));
        if !is_unanswered || !moves.past(&cluster, &endpoint, &mut wish) {
            return reached;
        }
    }
}

async fn dial(
    worker: &Rc<Worker>,
    arrival: &Arrival,
    (cluster, endpoint): (Rc<Cluster>, Rc<Endpoint>),
    avoid: &[SocketAddr],
) -> Result<Reached, UpstreamError> {
    let policy = cluster.policy();
    let Some(of_cluster) = cluster.room_for_connection(&policy) else {
        cluster.state.overflows.connections.fetch_add(1, Ordering::Relaxed);
        return Err(UpstreamError::Overflow("max connections"));
    };
    let counted = (of_cluster, Count::one(&endpoint.state, |state| &state.active));
    let behalf = Behalf { client: Some(arrival.client.address), local: arrival.local(), trace: arrival.trace };
    let dial = Dial { cluster: &cluster, endpoint: &endpoint, avoid, policy: &policy, behalf: &behalf, version: None };
    let connected = connect_within(worker, dial).await;
    let answer = if connected.is_ok() { Answer::Well } else { Answer::None };
    cluster.note(worker, &endpoint, answer);
    Ok(Reached { stream: connected?, cluster, endpoint, counted })
}

/// What consistent hashing goes by: of a connection that is its client's address, and nothing else.
fn hash(policy: &TrafficPolicy, arrival: &Arrival) -> Option<u64> {
    let balancer = policy.load_balancer.as_ref()?;
    let is_by_source = balancer.algorithm == Algorithm::ConsistentHash(HashKey::SourceAddress);
    is_by_source.then(|| upstream::hash_of(arrival.client.address.ip()))
}

/// Half-close stays half-close; whatever breaks one side resets the other.
async fn relay(ledger: &TcpLedger<'_>, stream: impl Duplex, reached: Reached) {
    let Reached { cluster, stream: mut upstream, counted, .. } = reached;
    let mut stream = ledger.of(stream);
    let policy = cluster.policy();
    let (idle, oldest) =
        policy.pool.as_ref().map(|pool| (pool.tcp_idle_timeout, pool.max_connection_duration)).unwrap_or_default();
    let copied = async {
        match idle {
            None => copy_bidirectional(&mut stream, &mut upstream).await,
            Some(idle) => copy_while_moving(&mut stream, &mut upstream, idle).await,
        }
    };
    let relayed = match oldest {
        None => copied.await,
        Some(oldest) => timeout(oldest, copied).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "it is as old as its maxConnectionDuration lets it become"))
        }),
    };
    drop(counted);
    if relayed.is_err() {
        upstream.reset();
    }
    ledger.ended(relayed.err().as_ref());
}

/// Copies until both sides have ended, or nothing has moved for that long.
async fn copy_while_moving(stream: impl Duplex, upstream: &mut Stream, idle: Duration) -> io::Result<(u64, u64)> {
    let moved = Cell::new(Instant::now());
    let read = InspectReader::new(stream, |_: &[u8]| moved.set(Instant::now()));
    let mut stream = InspectWriter::new(read, |_: &[u8]| moved.set(Instant::now()));
    let silence = async {
        while moved.get().elapsed() < idle {
            sleep_until(moved.get() + idle).await;
        }
    };
    tokio::select! {
        copied = copy_bidirectional(&mut stream, upstream) => copied,
        () = silence => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing moved for its idleTimeout")),
    }
}
