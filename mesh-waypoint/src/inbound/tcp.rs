//! What is no HTTP: bytes, passed on as they come.

use std::{cell::Cell, io, rc::Rc, sync::atomic::Ordering, time::Duration};

use ::http::StatusCode;
use mesh_core::l7::{
    Backend, BackendTarget, TrafficPolicy, split,
    traffic::{Algorithm, HashKey},
};
use mesh_transport::hbone::ConnectRequest;
use tokio::{
    io::copy_bidirectional,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::io::{InspectReader, InspectWriter};

use super::{Arrival, admission, stream_of, tcp_ledger::TcpLedger, watch::Watch};
use crate::{
    duplex::Duplex,
    upstream::{
        self, Answer, Cluster, ClusterKey, ClusterState, Count, Dial, Endpoint, EndpointState, Stream, UpstreamError,
        Wish, connect_within,
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
            if let Some(stream) = stream_of(tunnel) {
                let watch = Watch::begin(worker, arrival, reached.cluster.clone(), reached.endpoint.clone());
                relay(&ledger, watch.of(stream), reached).await;
            }
        }
        Err(error) => {
            ledger.refused(&error);
            let denied = matches!(error, UpstreamError::Denied(_));
            request.refuse(if denied { StatusCode::UNAUTHORIZED } else { StatusCode::SERVICE_UNAVAILABLE }).await;
        }
    }
}

/// Carries what a client has begun to say already.
pub(super) async fn carry(worker: &Rc<Worker>, arrival: &Arrival, stream: impl Duplex) {
    carry_to(worker, arrival, stream, Ok(ClusterKey::of_target(&arrival.target))).await;
}

/// The same to one of several destinations, by weight; none where no route leads anywhere.
pub(crate) async fn carry_by(
    worker: &Rc<Worker>,
    arrival: &Arrival,
    stream: impl Duplex,
    backends: Option<&[Backend]>,
) {
    let Some(backends) = backends else { return TcpLedger::open(worker, arrival).unrouted() };
    let chosen = split::pick(backends, fastrand::u64(..)).map(|backend| &backend.target);
    let key = match chosen {
        Some(BackendTarget::Service { hostname, port: Some(port), subset }) => {
            Ok(Some(ClusterKey::Service { hostname: hostname.clone(), port: *port, subset: subset.clone() }))
        }
        Some(BackendTarget::Unresolved { reason, .. }) => Err(UpstreamError::Connect(reason.to_string())),
        Some(BackendTarget::Service { port: None, .. }) | None => Ok(None),
    };
    carry_to(worker, arrival, stream, key).await;
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
    connect_to(worker, arrival, ClusterKey::of_target(&arrival.target).as_ref()).await
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
    let wish = Wish { asked: arrival.asked, hash: hash(&policy, arrival), node, ..Wish::default() };
    let endpoint = cluster.pick(&wish)?;
    let Some(of_cluster) = cluster.room_for_connection(&policy) else {
        cluster.state.overflows.connections.fetch_add(1, Ordering::Relaxed);
        return Err(UpstreamError::Overflow("max connections"));
    };
    let counted = (of_cluster, Count::one(&endpoint.state, |state| &state.active));
    let dial = Dial {
        endpoint: &endpoint,
        policy: &policy,
        client: Some(arrival.client.address),
        trace: arrival.trace,
        version: None,
    };
    let connected = connect_within(worker, dial).await;
    let answer = if connected.is_ok() { Answer::Well } else { Answer::Gateway };
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
