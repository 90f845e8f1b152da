//! Plaintext into a pod: what TC steered here goes to the application, as its policies allow.

use std::net::SocketAddr;

use mesh_core::policy::Permit;
use tokio::net::TcpStream;

use super::admission;
use crate::{
    connections::Carried,
    pods::EnrolledPod,
    sockets,
    telemetry::{Ending, Party, Refused, Report, Reporter},
    workers::Worker,
};

/// Carries one steered connection.
pub(super) async fn carry(worker: &Worker, pod: &EnrolledPod, outside: TcpStream, client: SocketAddr) {
    let Ok(target) = outside.local_addr() else {
        return;
    };
    let (client, target) = (canonical(client), canonical(target));
    let (snapshot, workload) = admission::awaited(worker, pod).await;
    let source =
        Party { address: Some(client), workload: snapshot.workload_by_address(client.ip()).cloned(), principal: None };
    let mut report = Report::begin(Reporter::Destination, source);
    report.destination = Party { address: Some(target), workload, principal: None };
    let judged = admission::judge(worker, pod, &snapshot, &mut report);
    drop(snapshot);
    let carried = worker.connections.begin(report);
    let ending = match judged {
        Ok(permit) => carry_to(worker, pod, permit, outside, &carried, client, target).await,
        Err((reason, error)) => {
            sockets::reset(outside);
            Ending::Refused(reason, error)
        }
    };
    carried.finish(&ending);
}

async fn carry_to(
    worker: &Worker,
    pod: &EnrolledPod,
    permit: Permit,
    outside: TcpStream,
    carried: &Carried<'_>,
    client: SocketAddr,
    target: SocketAddr,
) -> Ending {
    match sockets::dial_application(&pod.netns, target, client, &worker.flows, &permit).await {
        Ok(application) => carried.enter(permit, application, outside).await,
        Err(error) => {
            sockets::reset(outside);
            Ending::Refused(Refused::Unreachable, error.to_string())
        }
    }
}

/// A dual-stack listener shows IPv4 clients in mapped form.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
