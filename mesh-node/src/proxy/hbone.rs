//! Tunnels into a pod: who is it, is the target this pod's, then the application is connected before
//! the tunnel is accepted.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use http::StatusCode;
use mesh_core::{Snapshot, SpiffeId, Workload, l7::GATEWAY_NAME, policy::Permit};
use mesh_transport::hbone::{ConnectRequest, ServeError, Tunnel};
use tokio::net::TcpStream;

use super::{
    admission::{self, Rejection},
    plaintext::canonical,
    source_gone::until_gone,
};
use crate::{
    pods::EnrolledPod,
    sockets,
    telemetry::{CutReason, Ending, Party, Refused, Report, Reporter, Security, SpanKind},
    workers::Worker,
};

/// Serves one accepted connection on the HBONE port.
pub(super) async fn serve(worker: Rc<Worker>, pod: Arc<EnrolledPod>, stream: TcpStream, peer: SocketAddr) {
    let peer = canonical(peer);
    let shared = worker.shared.clone();
    let tls = match shared.identities.fetch(&pod.identity).await {
        Ok(tls) => tls,
        Err(error) => {
            tracing::error!(pod = pod.display_name, %error, "tunnel refused: no certificate");
            return sockets::reset(stream);
        }
    };
    let server = shared.hbone.clone();
    let handler = {
        let (worker, pod) = (worker.clone(), pod.clone());
        move |request: ConnectRequest| {
            let (worker, pod) = (worker.clone(), pod.clone());
            async move { carry(&worker, &pod, peer, request).await }
        }
    };
    let rejected = |reason| shared.telemetry.metrics.tunnel_rejected(reason);
    let gone = async |identity: &SpiffeId| until_gone(shared.config_changes(), peer.ip(), identity).await;
    let served = server.serve(stream, &tls, pod.drain.clone(), gone, handler, rejected).await;
    if let Err(error) = served {
        note(&worker, &pod, peer, &error);
    }
}

fn note(worker: &Worker, pod: &EnrolledPod, peer: SocketAddr, error: &ServeError) {
    if let ServeError::Ended(end) = error {
        worker.shared.telemetry.metrics.tunnel_ended(CutReason::of(end));
        tracing::info!(pod = pod.display_name, %peer, reason = CutReason::of(end).as_str(), %error, "tunnel ended");
    }
    if let Some(reason) = error.reason() {
        worker.shared.telemetry.metrics.tunnel_rejected(reason);
        tracing::info!(pod = pod.display_name, %peer, reason = reason.as_str(), %error, "tunnel rejected");
    }
}

/// Carries one CONNECT.
async fn carry(worker: &Worker, pod: &EnrolledPod, peer: SocketAddr, request: ConnectRequest) {
    // The server takes no names for a pod.
    let Some(target) = request.authority.address().map(canonical) else {
        return request.refuse(StatusCode::BAD_REQUEST).await;
    };
    let (snapshot, workload) = admission::awaited(worker, pod).await;
    let client = client(peer, request.forwarded);
    let source = Party {
        address: Some(client),
        workload: workload_of(&snapshot, peer, &request.peer),
        principal: Some(request.peer.clone()),
    };
    let mut report = Report::begin(Reporter::Destination, source);
    report.security = Security::MutualTls;
    report.destination = Party { address: Some(target), workload, principal: Some(pod.identity.clone()) };
    report.by_waypoint = report.source.workload.as_deref().is_some_and(|source| is_waypoint(&snapshot, source));
    let judged = admission::judge(worker, pod, &snapshot, &mut report);
    drop(snapshot);
    let span = worker.shared.telemetry.begin_span(SpanKind::Server, &report, request.traceparent.as_deref());
    let carried = worker.connections.begin(report);
    // On the heap, and gone before the bytes flow: a carried connection keeps little.
    let opened = Box::pin(open(worker, pod, judged, request, client, target)).await;
    let error = opened.as_ref().err().map(|(reason, error)| (*reason, error.as_str()));
    worker.shared.telemetry.set_up(span, carried.connection().report(), error);
    let ending = match opened {
        Ok((permit, application, tunnel)) => carried.enter(permit, application, tunnel).await,
        Err((reason, error)) => Ending::Refused(reason, error),
    };
    carried.finish(&ending);
}

/// Connects the application, if it may be, and then accepts the request, or answers it with the reason why not.
async fn open(
    worker: &Worker,
    pod: &EnrolledPod,
    judged: Result<Permit, Rejection>,
    mut request: ConnectRequest,
    client: SocketAddr,
    target: SocketAddr,
) -> Result<(Permit, TcpStream, Tunnel), Rejection> {
    let permit = match judged {
        Ok(permit) => permit,
        Err(rejection) => {
            request.refuse(status(rejection.0)).await;
            return Err(rejection);
        }
    };
    let dialled = tokio::select! {
        biased;
        dialled = sockets::dial_application(&pod.netns, target, client, &worker.flows, &permit) => dialled,
        // Whoever asks and takes back must not leave us with a socket for each time.
        () = request.withdrawn() => {
            return Err((Refused::TunnelFailed, "the client took its request back".to_owned()));
        }
    };
    let application = match dialled {
        Ok(application) => application,
        Err(error) => {
            request.refuse(StatusCode::SERVICE_UNAVAILABLE).await;
            return Err((Refused::Unreachable, error.to_string()));
        }
    };
    match request.accept().await {
        Ok(tunnel) => Ok((permit, application, tunnel)),
        Err(error) => {
            sockets::reset(application);
            Err((Refused::TunnelFailed, error.to_string()))
        }
    }
}

/// What a request is answered with that may not enter.
const fn status(reason: Refused) -> StatusCode {
    match reason {
        Refused::BadTarget => StatusCode::BAD_REQUEST,
        Refused::WorkloadUnknown => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNAUTHORIZED,
    }
}

/// The client's address as the application shall see it. The tunnel's own source is the kernel's word
/// for the client's host; only the port is taken from the client's claim, and only for that host.
fn client(peer: SocketAddr, forwarded: Option<SocketAddr>) -> SocketAddr {
    match forwarded.map(canonical) {
        Some(claimed) if claimed.ip() == peer.ip() => claimed,
        _ => peer,
    }
}

/// The client's workload for telemetry: by its address, if that workload has the identity that was proven.
pub(super) fn workload_of(snapshot: &Snapshot, peer: SocketAddr, proven: &SpiffeId) -> Option<Arc<Workload>> {
    let workload = snapshot.workload_by_address(peer.ip())?;
    (workload.identity == *proven).then(|| workload.clone())
}

/// Whether a workload is a replica of a waypoint.
fn is_waypoint(snapshot: &Snapshot, workload: &Workload) -> bool {
    // Most are not, and that is plain without looking at the waypoints.
    workload.labels.get(GATEWAY_NAME).is_some()
        && snapshot.l7().waypoints().iter().any(|waypoint| waypoint.runs_as(workload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_client_counts_only_for_the_tunnels_own_host() {
        let address = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let peer = address("10.0.0.1:40000");
        assert_eq!(client(peer, Some(address("10.0.0.1:5"))), address("10.0.0.1:5"));
        assert_eq!(client(peer, Some(address("[::ffff:10.0.0.1]:5"))), address("10.0.0.1:5"));
        assert_eq!(client(peer, Some(address("10.0.0.2:5"))), peer);
        assert_eq!(client(peer, None), peer);
    }
}
