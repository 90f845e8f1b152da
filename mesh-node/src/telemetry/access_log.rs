//! The access log: one line at a connection's end.

use std::net::SocketAddr;

use mesh_core::{SpiffeId, Workload};

use super::report::{Bytes, Ending, Report};

/// Writes the line.
pub(super) fn write(report: &Report, bytes: Bytes, ending: &Ending) {
    tracing::info!(
        target: "access",
        reporter = report.reporter.as_str(),
        source = address(report.source.address),
        source_workload = workload(report.source.workload.as_deref()),
        source_principal = principal(report.source.principal.as_ref()),
        destination = address(report.destination.address),
        destination_workload = workload(report.destination.workload.as_deref()),
        destination_principal = principal(report.destination.principal.as_ref()),
        destination_service = report.service.as_ref().map(|service| service.hostname.as_ref()),
        original_destination = address(report.original),
        security = report.security.as_str(),
        policy = report.decider.as_ref().map(ToString::to_string),
        bytes_from_client = bytes.from_client,
        bytes_to_client = bytes.to_client,
        duration_us = u64::try_from(report.age().as_micros()).unwrap_or(u64::MAX),
        end = ending.name(),
        error = ending.detail(),
        "connection"
    );
}

fn address(address: Option<SocketAddr>) -> Option<String> {
    address.map(|address| address.to_string())
}

fn workload(workload: Option<&Workload>) -> Option<String> {
    workload.map(|workload| format!("{}/{}", workload.namespace, workload.name))
}

fn principal(principal: Option<&SpiffeId>) -> Option<&str> {
    principal.map(SpiffeId::as_str)
}
