//! A pod's own connections: where did it want to go, and how does it get there.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::StatusCode;
use mesh_core::{Destination, Refusal, Snapshot, SpiffeId, Transport, resolve};
use mesh_transport::{
    TlsIdentity,
    hbone::{ConnectError, PoolKey, TunnelRequest},
    limits::DIAL_ANSWER,
    relay::Far,
    sidecar::{Content, SidecarTls},
};
use tokio::{net::TcpStream, time::Instant};

use super::{admission, baggage, unreached::DRAWS};
use crate::{
    pods::EnrolledPod,
    sockets::{self, DialError},
    telemetry::{Decider, Ending, Party, Refused, Report, Reporter, Security, Span, SpanKind},
    workers::Worker,
};

/// How long a destination that is enrolled may refuse tunnels before its connections are refused: its
/// node may be about to open the listener, or to restart.
const PATIENCE: Duration = Duration::from_secs(3);
/// First pause between two attempts; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// Why there is no connection to the other end.
struct Failure {
    reason: Refused,
    error: String,
}

/// Carries one redirected connection.
pub(super) async fn carry(worker: &Worker, pod: &EnrolledPod, app: TcpStream, client: SocketAddr) {
    let Ok(listener) = app.local_addr() else {
        return;
    };
    let (_, workload) = admission::awaited(worker, pod).await;
    let source = Party {
        address: Some(SocketAddr::new(pod_address(pod, client), client.port())),
        workload,
        principal: Some(pod.identity.clone()),
    };
    let mut report = Report::begin(Reporter::Source, source);
    let cookie = pod.netns.cookie();
    let found = worker.flows.take_original_destination(cookie, client, listener);
    report.original = found.map(|(original, _)| original);
    let dice = found.and_then(|(_, dice)| dice);
    // On the heap, and gone before the bytes flow: a carried connection keeps little.
    let connected = Box::pin(connect_traced(worker, pod, &mut report, dice)).await;
    let carried = worker.connections.begin(report);
    // Configurations that came while it was connected have judged it not.
    if let Some(cut) = admission::forbidden(&worker.shared.snapshot(), carried.connection().report()) {
        carried.connection().cut(cut);
    }
    let ending = match connected {
        Ok(far) => carried.leave(app, far).await,
        Err(failure) => refuse(app, failure),
    };
    carried.finish(&ending);
}

/// The address that the other end sees: the pod's own of the same family, as the socket is on loopback.
fn pod_address(pod: &EnrolledPod, client: SocketAddr) -> std::net::IpAddr {
    let addresses = pod.addresses.get();
    let same_family = addresses.iter().find(|ip| ip.is_ipv4() == client.is_ipv4());
    same_family.copied().unwrap_or(client.ip())
}

fn refuse(app: TcpStream, failure: Failure) -> Ending {
    sockets::reset(app);
    Ending::Refused(failure.reason, failure.error)
}

/// [`connect`], with a span of it.
async fn connect_traced(
    worker: &Worker,
    pod: &EnrolledPod,
    report: &mut Report,
    dice: Option<u32>,
) -> Result<Far, Failure> {
    let telemetry = &worker.shared.telemetry;
    let mut span = telemetry.begin_span(SpanKind::Client, report, None);
    let connected = connect(worker, pod, report, dice, span.as_deref_mut()).await;
    let error = connected.as_ref().err().map(|failure| (failure.reason, failure.error.as_str()));
    telemetry.set_up(span, report, error);
    connected
}

/// Resolves and connects, again and again while an enrolled destination is not there yet.
async fn connect(
    worker: &Worker,
    pod: &EnrolledPod,
    report: &mut Report,
    mut dice: Option<u32>,
    mut span: Option<&mut Span>,
) -> Result<Far, Failure> {
    let (begun, mut not_yet) = (Instant::now(), None);
    let mut pause = FIRST_PAUSE;
    loop {
        let now = Instant::now();
        // Resolved anew each time: the pod may have moved meanwhile.
        let snapshot = worker.shared.snapshot();
        let drawn = random(dice.take());
        let random = worker.unreached.past(&pod.uid, drawn, |random| Some(endpoint(&snapshot, report, random)?.ip()));
        let attempt = match destination(&snapshot, report, random) {
            Ok(destination) => attempt(worker, pod, destination, report, span.as_deref_mut()).await,
            Err(failure) => Err(failure),
        };
        let (failure, until) = match attempt {
            Ok(far) => return Ok(far),
            Err(TunnelFailure::Final(failure)) => return Err(failure),
            Err(TunnelFailure::NotYet(failure)) => (failure, *not_yet.get_or_insert(now + PATIENCE)),
            // The next one asked is another.
            Err(TunnelFailure::Unanswered(failure)) => (failure, begun + sockets::CONNECT_TIMEOUT),
        };
        if Instant::now() + pause > until {
            return Err(failure);
        }
        if let Some(span) = &mut span {
            span.event("retry", Some(failure.error));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Connects to where it was resolved to, once.
async fn attempt(
    worker: &Worker,
    pod: &EnrolledPod,
    destination: Destination,
    report: &mut Report,
    mut span: Option<&mut Span>,
) -> Result<Far, TunnelFailure> {
    let (identity, authority) = match &destination.transport {
        Transport::Plaintext(_) => {
            return plaintext(worker, pod, destination.endpoint, report).await;
        }
        Transport::Sidecar { identity } => {
            (report.security, report.destination.principal) = (Security::MutualTls, Some(identity.clone()));
            return sidecar(worker, pod, destination.endpoint, identity, report).await;
        }
        Transport::Hbone { identity } => (identity, destination.endpoint),
        Transport::Waypoint { identity, asked, .. } => (identity, *asked),
    };
    if let Some(span) = &mut span {
        span.event("resolved", Some(destination.endpoint.to_string()));
    }
    report.security = Security::MutualTls;
    report.destination.principal = Some(identity.clone());
    let traceparent = span.as_ref().map(|span| span.traceparent());
    tunnel(worker, pod, &destination, (identity, authority), report, traceparent).await
}

/// The random number that picks an endpoint: the kernel's, which would have connected some of them by itself and sends
/// us the others. Thrown anew, those would have more than their share.
fn random(dice: Option<u32>) -> u64 {
    dice.map_or_else(|| fastrand::u64(..), |dice| u64::from(dice) << 32)
}

fn destination(snapshot: &Arc<Snapshot>, report: &mut Report, random: u64) -> Result<Destination, TunnelFailure> {
    let Some(original) = report.original else {
        let error = "the kernel did not redirect this connection".to_owned();
        return Err(TunnelFailure::Final(Failure { reason: Refused::NoOriginalDestination, error }));
    };
    let Some(client) = report.source.workload.clone() else {
        let error = "the rules for this pod's connections have not arrived".to_owned();
        return Err(TunnelFailure::Final(Failure { reason: Refused::WorkloadUnknown, error }));
    };
    match resolve(snapshot, Some(&client), original, random) {
        Ok(destination) => {
            report.service.clone_from(&destination.service);
            report.decider = destination.rule.as_ref().map(|rule| Decider::DestinationRule(rule.name.clone()));
            report.security = Security::None;
            report.destination =
                Party { address: Some(destination.endpoint), workload: destination.workload.clone(), principal: None };
            Ok(destination)
        }
        Err(refusal) => {
            report.service = refusal.service().cloned();
            let (reason, rule) = match &refusal {
                // One may be starting.
                Refusal::WaypointWithoutReplicas { .. } => {
                    let failure = Failure { reason: Refused::NoEndpoint, error: refusal.to_string() };
                    return Err(TunnelFailure::NotYet(failure));
                }
                Refusal::ServiceWithoutEndpoints { .. }
                | Refusal::NoEndpointOnNode { .. }
                | Refusal::NamesNotResolved { .. }
                | Refusal::NoHost { .. }
                | Refusal::ServicePortNotDeclared { .. } => (Refused::NoEndpoint, None),
                Refusal::MutualTlsImpossible { rule, .. } | Refusal::TlsNotOriginated { rule, .. } => {
                    (Refused::RuleNotMet, Some(rule))
                }
                // Those policies are about gateways and waypoints.
                Refusal::NobodyBelieved { .. } => (Refused::RuleNotMet, None),
            };
            report.decider = rule.cloned().map(Decider::DestinationRule);
            Err(TunnelFailure::Final(Failure { reason, error: refusal.to_string() }))
        }
    }
}

/// Which endpoint a random number leads to.
fn endpoint(snapshot: &Snapshot, report: &Report, random: u64) -> Option<SocketAddr> {
    let resolved = resolve(snapshot, report.source.workload.as_deref(), report.original?, random);
    resolved.ok().map(|destination| destination.endpoint)
}

/// Dials an endpoint, or the daemon of its pod, from inside the pod's namespace. One that does not answer is left alone where
/// there is another.
async fn dial(worker: &Worker, pod: &EnrolledPod, to: SocketAddr, report: &Report) -> Result<TcpStream, DialError> {
    let unanswered = async {
        tokio::time::sleep(DIAL_ANSWER).await;
        if !is_one_of_several(worker, pod, report, to.ip()) {
            std::future::pending::<()>().await;
        }
        worker.unreached.note(&pod.uid, to.ip());
    };
    tokio::select! {
        dialled = sockets::dial(&pod.netns, to) => {
            if dialled.is_ok() {
                worker.unreached.answered(&pod.uid, to.ip());
            }
            dialled
        }
        () = unanswered => Err(DialError::Unanswered),
    }
}

/// Whether a connection to the same destination might go to another endpoint, of which nothing bad is known.
fn is_one_of_several(worker: &Worker, pod: &EnrolledPod, report: &Report, this: IpAddr) -> bool {
    let snapshot = worker.shared.snapshot();
    let others = (0..DRAWS).filter_map(|_| endpoint(&snapshot, report, fastrand::u64(..)));
    others.map(|other| other.ip()).any(|other| other != this && !worker.unreached.passes_by(&pod.uid, other))
}

async fn plaintext(
    worker: &Worker,
    pod: &EnrolledPod,
    endpoint: SocketAddr,
    report: &Report,
) -> Result<Far, TunnelFailure> {
    dial(worker, pod, endpoint, report).await.map(Far::from).map_err(TunnelFailure::from)
}

/// Connects a pod that is not part of the mesh and has a sidecar of Istio's, by mTLS with that.
async fn sidecar(
    worker: &Worker,
    pod: &EnrolledPod,
    endpoint: SocketAddr,
    expected: &SpiffeId,
    report: &Report,
) -> Result<Far, TunnelFailure> {
    let tls = certificate(worker, &pod.identity).await.map_err(TunnelFailure::Final)?;
    let stream = dial(worker, pod, endpoint, report).await?;
    let limits = &worker.shared.limits;
    match SidecarTls::connect(stream, &tls, (endpoint, expected), Content::Bytes, limits).await {
        Ok(sidecar) => Ok(sidecar.into()),
        // It has no daemon that is about to come back.
        Err(error) => Err(TunnelFailure::Final(classify(worker, &error).into())),
    }
}

enum TunnelFailure {
    /// The destination's daemon is not there, or not yet, or was replaced.
    NotYet(Failure),
    /// The destination does not answer, and there is another.
    Unanswered(Failure),
    Final(Failure),
}

impl From<DialError> for TunnelFailure {
    fn from(error: DialError) -> Self {
        let failure = Failure { reason: Refused::Unreachable, error: error.to_string() };
        match error {
            DialError::Unanswered => Self::Unanswered(failure),
            _ => Self::Final(failure),
        }
    }
}

impl From<TunnelFailure> for Failure {
    fn from(failure: TunnelFailure) -> Self {
        match failure {
            TunnelFailure::NotYet(failure) | TunnelFailure::Unanswered(failure) | TunnelFailure::Final(failure) => {
                failure
            }
        }
    }
}

async fn tunnel(
    worker: &Worker,
    pod: &EnrolledPod,
    destination: &Destination,
    (expected, authority): (&SpiffeId, SocketAddr),
    report: &Report,
    traceparent: Option<String>,
) -> Result<Far, TunnelFailure> {
    let tls = certificate(worker, &pod.identity).await.map_err(TunnelFailure::Final)?;
    let peer = SocketAddr::new(destination.endpoint.ip(), mesh_abi::ports::HBONE);
    let key = PoolKey { source: pod.uid.clone(), identity: pod.identity.clone(), peer, expected: expected.clone() };
    let cluster = &worker.shared.cluster;
    let request = TunnelRequest {
        authority: authority.into(),
        forwarded: report.source.address,
        baggage: report.source.workload.as_deref().map(|source| baggage::of(source, cluster)),
        traceparent,
    };
    let dialled = async || match dial(worker, pod, peer, report).await {
        Ok(stream) => Ok(stream),
        Err(DialError::Connect(error)) => Err(error),
        Err(unanswered @ DialError::Unanswered) => Err(io::Error::new(io::ErrorKind::TimedOut, unanswered)),
        Err(other) => Err(io::Error::other(other)),
    };
    match worker.pool.connect(key, &tls, request, dialled).await {
        Ok(tunnel) => {
            worker.unreached.answered(&pod.uid, peer.ip());
            Ok(tunnel.into())
        }
        Err(error) => Err(match (classify(worker, &error), &destination.transport) {
            (TunnelFailure::Final(failure), Transport::Waypoint { .. }) if may_pass_at_a_waypoint(&error) => {
                TunnelFailure::NotYet(failure)
            }
            (failure, _) => failure,
        }),
    }
}

/// Another replica of the waypoint may answer; and the waypoint may learn of an added or removed Service earlier or later than
/// this node.
fn may_pass_at_a_waypoint(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Dial { .. } | ConnectError::Refused(StatusCode::BAD_REQUEST))
}

async fn certificate(worker: &Worker, identity: &SpiffeId) -> Result<Arc<TlsIdentity>, Failure> {
    worker
        .shared
        .identities
        .fetch(identity)
        .await
        .map_err(|error| Failure { reason: Refused::NoCertificate, error: error.to_string() })
}

fn classify(worker: &Worker, error: &ConnectError) -> TunnelFailure {
    if let Some(reason) = error.reason() {
        worker.shared.telemetry.metrics.tunnel_rejected(reason);
    }
    let failure = |reason| Failure { reason, error: error.to_string() };
    match error {
        ConnectError::Dial { source, .. } if source.kind() == io::ErrorKind::TimedOut => {
            return TunnelFailure::Unanswered(failure(Refused::Unreachable));
        }
        _ if error.is_passing() => return TunnelFailure::NotYet(failure(Refused::Unreachable)),
        _ => {}
    }
    TunnelFailure::Final(failure(match error {
        ConnectError::Refused(StatusCode::UNAUTHORIZED) => Refused::PolicyDenied,
        ConnectError::Dial { .. } | ConnectError::Refused(_) => Refused::Unreachable,
        _ => Refused::TunnelFailed,
    }))
}
