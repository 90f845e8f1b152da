//! Plaintext into a pod: what TC steered here goes to the application, as the mode of the pod allows.

use std::net::SocketAddr;

use tokio::net::TcpStream;

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
    let snapshot = worker.shared.snapshot();
    let source =
        Party { address: Some(client), workload: snapshot.workload_by_address(client.ip()).cloned(), principal: None };
    let mut report = Report::begin(Reporter::Destination, source);
    report.destination =
        Party { address: Some(target), workload: snapshot.workload_by_uid(&pod.uid).cloned(), principal: None };
    let carried = worker.connections.begin(report);
    let ending = carry_to(worker, pod, outside, &carried, client, target).await;
    carried.finish(&ending);
}

async fn carry_to(
    worker: &Worker,
    pod: &EnrolledPod,
    outside: TcpStream,
    carried: &Carried<'_>,
    client: SocketAddr,
    target: SocketAddr,
) -> Ending {
    if !pod.owns(target.ip()) || mesh_abi::ports::is_reserved(target.port()) {
        sockets::reset(outside);
        let error = format!("{target} is not an address of {}'s applications", pod.display_name);
        return Ending::Refused(Refused::BadTarget, error);
    }
    match sockets::dial_application(&pod.netns, target, client, &worker.flows).await {
        Ok(application) => carried.relay(application, outside).await,
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
