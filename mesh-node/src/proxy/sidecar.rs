//! Istio's sidecars, which begin mutual TLS at an application's own port: judged by the identity that they prove, as tunnels
//! are, and what they say is taken out of TLS for the application.

use mesh_core::policy::Permit;
use mesh_transport::sidecar::{Sidecar, SidecarTls};
use tokio::net::TcpStream;

use super::{
    admission::{self, Rejection},
    hbone::workload_of,
    plaintext::Arrival,
    source_gone::until_gone,
};
use crate::{
    connections::Carried,
    sockets,
    telemetry::{Cut, CutReason, Ending, Party, Refused, Report, Reporter, Security},
};

/// Carries one connection that began as a sidecar's; `application` is connected already where plaintext would have been let in.
pub(super) async fn carry(arrival: Arrival<'_>, application: Option<TcpStream>, outside: TcpStream) {
    let Arrival { worker, pod, client, target } = arrival;
    let Some((sidecar, tls)) = Box::pin(identify(arrival, outside)).await else {
        application.into_iter().for_each(sockets::reset);
        return;
    };
    let (snapshot, workload) = admission::awaited(worker, pod).await;
    let source = Party {
        address: Some(client),
        workload: workload_of(&snapshot, client, &sidecar.identity),
        principal: Some(sidecar.identity.clone()),
    };
    let mut report = Report::begin(Reporter::Destination, source);
    report.security = Security::MutualTls;
    report.destination = Party { address: Some(target), workload, principal: Some(pod.identity.clone()) };
    let judged = admission::judge(worker, pod, &snapshot, &mut report);
    drop(snapshot);
    let carried = worker.connections.begin(report);
    let ending = match Box::pin(open(arrival, judged, application)).await {
        Ok((permit, application)) => relay(arrival, &carried, permit, application, &sidecar, tls).await,
        Err((reason, error)) => {
            tls.reset();
            Ending::Refused(reason, error)
        }
    };
    carried.finish(&ending);
}

/// Shakes hands. None where that fails, which is told and counted as with tunnels.
async fn identify(arrival: Arrival<'_>, outside: TcpStream) -> Option<(Sidecar, SidecarTls)> {
    let Arrival { worker, pod, client, .. } = arrival;
    let tls = match worker.shared.identities.fetch(&pod.identity).await {
        Ok(tls) => tls,
        Err(error) => {
            tracing::error!(pod = pod.display_name, %error, "sidecar refused: no certificate");
            sockets::reset(outside);
            return None;
        }
    };
    let accepted = worker.shared.hbone.accept_sidecar(outside, &tls).await;
    if let Err(error) = &accepted
        && let Some(reason) = error.reason()
    {
        worker.shared.telemetry.metrics.tunnel_rejected(reason);
        tracing::info!(pod = pod.display_name, peer = %client, reason = reason.as_str(), %error, "sidecar rejected");
    }
    accepted.ok()
}

/// Connects the application where it is not yet, if the sidecar may enter.
async fn open(
    arrival: Arrival<'_>,
    judged: Result<Permit, Rejection>,
    application: Option<TcpStream>,
) -> Result<(Permit, TcpStream), Rejection> {
    let Arrival { worker, pod, client, target } = arrival;
    let permit = match (judged, application) {
        (Ok(permit), Some(application)) => return Ok((permit, application)),
        (Ok(permit), None) => permit,
        (Err(rejection), application) => {
            application.into_iter().for_each(sockets::reset);
            return Err(rejection);
        }
    };
    match sockets::dial_application(&pod.netns, target, client, &worker.flows, &permit).await {
        Ok(application) => Ok((permit, application)),
        Err(error) => Err((Refused::Unreachable, error.to_string())),
    }
}

/// Relays until the end, or until who connects is trusted no more or gone.
async fn relay(
    arrival: Arrival<'_>,
    carried: &Carried<'_>,
    permit: Permit,
    application: TcpStream,
    sidecar: &Sidecar,
    tls: SidecarTls,
) -> Ending {
    let changes = arrival.worker.shared.config_changes();
    let ended = async {
        tokio::select! {
            end = sidecar.until_untrusted() => end,
            end = until_gone(changes, arrival.client.ip(), &sidecar.identity) => end,
        }
    };
    let entering = carried.enter(permit, application, tls);
    let cutting = async {
        let end = ended.await;
        carried.connection().cut(Cut { reason: CutReason::of(&end), detail: end.to_string() });
        std::future::pending().await
    };
    tokio::select! {
        // An untrusted peer is not served a last byte.
        biased;
        never = cutting => never,
        ending = entering => ending,
    }
}
