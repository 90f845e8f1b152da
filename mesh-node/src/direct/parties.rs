//! Who is at the ends of a direct connection, as telemetry tells of it.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use mesh_core::{
    Snapshot,
    policy::{Authorization, authorize},
};

use crate::{
    bpf::Attested,
    telemetry::{Party, Report, Reporter, Security},
};

/// The reports of both ends, the client's first. Pods are known by their addresses, for which the kernel answers.
pub(super) fn reports(connection: &Attested, snapshot: &Arc<Snapshot>, started: Instant) -> [Report; 2] {
    let source = party(connection.client, snapshot);
    let destination = party(connection.server, snapshot);
    let service = snapshot.service_by_vip(connection.asked.ip());
    [Reporter::Source, Reporter::Destination].map(|reporter| {
        let mut report = Report::begin_at(reporter, source.clone(), started);
        report.destination = destination.clone();
        report.security = Security::KernelAttested;
        if reporter == Reporter::Source {
            report.service = service.cloned();
            report.original = Some(connection.asked);
        }
        report
    })
}

/// What the policies say of a connection that the kernel has made; none where its pods are not known any more.
pub(super) fn authorization(report: &Report, snapshot: &Snapshot) -> Option<Authorization> {
    // Without its identity nothing was attested that could be judged.
    report.source.principal.as_ref()?;
    Some(authorize(snapshot, report.destination.workload.as_deref()?, &report.facts()?))
}

fn party(address: SocketAddr, snapshot: &Snapshot) -> Party {
    let workload = snapshot.workload_by_address(address.ip()).cloned();
    let principal = workload.as_ref().map(|workload| workload.identity.clone());
    Party { address: Some(address), workload, principal }
}
