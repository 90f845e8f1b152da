//! Connections that are carried now, and the stream of what happens to them.

use std::time::UNIX_EPOCH;

use mesh_admin::{Connection, Flow, FlowSelection, List, OutsideClient, Party, RequestFlow, Selection, Talk};
use mesh_admin_server::Answer;
use mesh_core::{SpiffeId, Workload};
use mesh_signals::{Exchange, Protocol};

use super::Admin;
use crate::{
    connections::ConnectionView,
    telemetry::{self, FlowEvent, Report},
};

impl Admin {
    /// The connections of this daemon that have an end in the selected namespace.
    pub(super) async fn connections(&self, selection: &Selection) -> List<Connection> {
        let mut views = match self.workers.upgrade() {
            Some(workers) => workers.connections().await,
            // The daemon is ending.
            None => Vec::new(),
        };
        views.extend(self.shared.direct.views());
        views.sort_unstable_by_key(|view| view.id);
        let wanted = |view: &ConnectionView| {
            let touches = |party: &telemetry::Party, wanted: &str| {
                party.workload.as_ref().is_some_and(|workload| &*workload.namespace == wanted)
            };
            let report = &view.report;
            selection
                .namespace
                .as_deref()
                .is_none_or(|it| touches(&report.source, it) || touches(&report.destination, it))
        };
        let part = Selection { namespace: None, ..selection.clone() };
        let generation = self.shared.config().generation;
        part.take(views.iter().filter(|view| wanted(view)), |_| "", generation, connection)
    }

    /// Who is connected to this node's pods outside the mesh.
    pub(super) async fn outside(&self, selection: &Selection) -> List<OutsideClient> {
        let config = self.shared.config();
        let is_wanted = |pod: &Workload| selection.namespace.as_deref().is_none_or(|it| *pod.namespace == *it);
        let on_node = config.snapshot.workloads_on(&self.node);
        let pods: Vec<_> = on_node.filter(|pod| !pod.is_enrolled() && is_wanted(pod)).cloned().collect();
        let sandboxes = self.pods.sandboxes.clone();
        let found = tokio::task::spawn_blocking(move || sandboxes.clients(&pods)).await;
        // One that is broken off has nothing to say: the daemon ends.
        let found = found.unwrap_or_default();
        let all =
            found.iter().flat_map(|of| of.by_port.iter().map(|(at, connections)| (&of.workload, at, *connections)));
        selection.take(
            all,
            |(workload, ..)| &workload.namespace,
            config.generation,
            |(workload, (port, client), connections)| OutsideClient {
                namespace: workload.namespace.to_string(),
                pod: workload.name.to_string(),
                port: *port,
                client: *client,
                connections,
            },
        )
    }

    /// The stream of flows, a line of JSON each, for as long as the client reads.
    pub(super) fn flows(&self, selection: FlowSelection) -> Answer {
        mesh_admin_server::flows(self.shared.telemetry.flows.listen(), selection, flow)
    }
}

fn connection(view: &ConnectionView) -> Connection {
    Connection {
        id: view.id.number(),
        open: view.is_open,
        age_seconds: view.report.age().as_secs(),
        talk: talk(&view.report, view.bytes),
    }
}

fn flow(event: &FlowEvent) -> Flow {
    let since = event.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Flow {
        at_milliseconds: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        event: event.kind.as_str().to_owned(),
        id: event.connection.number(),
        talk: talk(&event.report, event.bytes),
        end: event.end.map(str::to_owned),
        detail: event.detail.clone(),
        request: event.request.as_ref().map(|exchange| Box::new(request(exchange))),
    }
}

fn request(exchange: &Exchange) -> RequestFlow {
    RequestFlow {
        protocol: match exchange.protocol {
            Protocol::Http => "http",
            Protocol::Grpc => "grpc",
        }
        .to_owned(),
        status: exchange.status.unwrap_or(0),
        grpc_status: exchange.grpc_status,
        flags: telemetry::request_flags(exchange.status).to_owned(),
        duration_microseconds: u64::try_from(exchange.duration.as_micros()).unwrap_or(u64::MAX),
        ..RequestFlow::default()
    }
}

fn talk(report: &Report, bytes: telemetry::Bytes) -> Talk {
    Talk {
        reporter: report.reporter.as_str().to_owned(),
        source: party(&report.source),
        destination: party(&report.destination),
        service: report.service.as_ref().map(|service| service.hostname.to_string()),
        original_destination: report.original,
        security: report.security.as_str().to_owned(),
        policy: report.decider.as_ref().map(ToString::to_string),
        bytes_from_client: bytes.from_client,
        bytes_to_client: bytes.to_client,
    }
}

fn party(party: &telemetry::Party) -> Party {
    let workload = party.workload.as_deref();
    Party {
        address: party.address,
        namespace: workload.map(|workload| workload.namespace.to_string()),
        pod: workload.map(|workload| workload.name.to_string()),
        workload: workload.map(|workload| workload.workload_name.to_string()),
        principal: party.principal.as_ref().map(SpiffeId::to_string),
    }
}
