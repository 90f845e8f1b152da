//! What the kernel has dropped, as flow events.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_abi::Counter;
use mesh_core::{Snapshot, Workload};

use crate::{
    bpf::{self, DropEvent, DropEvents},
    node::Shared,
    telemetry::{Party, Report, Reporter},
};

/// Pause after a batch of events, in which more of them gather without waking anybody.
const GATHERING: Duration = Duration::from_millis(50);

/// Tells of what is dropped, until the daemon ends. Where nobody listens, events are taken out and forgotten: those who begin
/// to listen hear of what comes then.
pub async fn tell(mut events: DropEvents, shared: &Shared) {
    while events.ready().await.is_ok() {
        let snapshot = shared.snapshot();
        while let Some(event) = events.next() {
            let age = bpf::now().saturating_sub(event.at);
            let at = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
            let report = || report(&event, &snapshot, shared);
            shared.telemetry.flows.dropped(at, event.reason.reason(), sentence(event.reason), report);
        }
        tokio::time::sleep(GATHERING).await;
    }
}

/// Who was to talk to whom: the pod by its namespace, which it cannot forge, anybody else by the address that is claimed.
fn report(event: &DropEvent, snapshot: &Snapshot, shared: &Shared) -> Report {
    let pod = event.netns_cookie.and_then(|cookie| shared.direct.pod(cookie));
    let pod = pod.and_then(|pod| snapshot.workload_by_uid(&pod.uid).cloned());
    let party = |address: Option<std::net::SocketAddr>, pod: Option<Arc<Workload>>| {
        let claimed = || snapshot.workload_by_address(address?.ip()).cloned();
        Party { address, workload: pod.or_else(claimed), principal: None }
    };
    let (source, destination, reporter) =
        if event.arriving { (None, pod, Reporter::Destination) } else { (pod, None, Reporter::Source) };
    let mut report = Report::begin(reporter, party(event.source, source));
    report.destination = party(event.destination, destination);
    report
}

/// The reason, for people.
const fn sentence(reason: Counter) -> &'static str {
    match reason {
        Counter::DroppedReservedPort => "an application dialled one of the mesh's own ports (15001, 15006, 15008)",
        Counter::DroppedNoRecord => "the kernel had no memory for the socket's record",
        Counter::DroppedUnattestedSyn => {
            "the SYN is not of a connection that the mesh knows: a raw socket, or one bound to the device"
        }
        Counter::DroppedNoListener => {
            "nobody listens for the mesh in the pod: its daemon is away, or has not joined it yet"
        }
        Counter::DroppedSteerFailed => "the kernel refused to hand the connection to the daemon",
        Counter::DroppedFragment => "TCP in fragments could hide its flags",
        Counter::DroppedMalformed => "its headers cannot be read",
        Counter::DroppedForgedFlow => "it has the addresses of an attested handshake and is no part of it",
        Counter::DroppedUnattestable => {
            "a direct connection that policy allows no more, or with a foreign source, or one too many for the kernel's table"
        }
        Counter::OutboundRedirected
        | Counter::InboundSteered
        | Counter::UdpPassed
        | Counter::DirectConnected
        | Counter::DirectAdmitted
        | Counter::ProbeAdmitted
        | Counter::LostDirectEvent
        | Counter::LostDropEvent
        | Counter::UntoldDrop
        | Counter::LostSignal
        | Counter::UntoldSignal
        | Counter::ForsakenFrames
        | Counter::HostAnswered => "nothing was dropped: the kernel's programs and the daemon differ",
    }
}
