//! Why a connection goes where it goes: what the configuration says, and what this node adds.

use std::{net::SocketAddr, time::SystemTime};

use http::StatusCode;
use mesh_admin::{Certificate, NodeView, Why};
use mesh_admin_server::{Answer, Query, certificate, json, refuse, request};
use mesh_core::{
    Workload,
    hosts::{dns_servers, told, untold},
    why::{Client, SameNode, find_client, find_target, why},
};

use super::Admin;

/// What is asked.
#[derive(Default)]
struct Question<'a> {
    source: &'a str,
    destination: &'a str,
    namespace: Option<&'a str>,
}

impl Admin {
    /// Answers by the configuration; with `here`, by this node's state as well.
    pub(super) fn why(&self, query: &Query, here: bool) -> Answer {
        let mut question = Question::default();
        for (name, value) in query.pairs() {
            match name {
                "src" => question.source = value,
                "dst" => question.destination = value,
                "namespace" => question.namespace = Some(value),
                _ => return bad_request(format!("{name} is not known here: src, dst and namespace are")),
            }
        }
        if question.source.is_empty() || question.destination.is_empty() {
            return bad_request("src and dst are needed");
        }
        let snapshot = self.shared.snapshot();
        let found = find_client(&snapshot, question.source, question.namespace)
            .and_then(|client| Ok((client, find_target(&snapshot, question.destination, question.namespace)?)));
        let (client, target) = match found {
            Ok(found) => found,
            Err(error) => return bad_request(error),
        };
        let node = here.then(|| self.view(&client, target.address));
        let mut answer = Why::from(&why(&snapshot, client, target.address, self.same_node()));
        if let Some(stop) = node.as_ref().and_then(|node| node.stops.first()) {
            answer.allowed = false;
            answer.summary = format!("refused: {stop}");
        }
        answer.node = node;
        json(&answer)
    }

    /// Answers what becomes of a request, by the configuration.
    pub(super) fn request(&self, query: &Query) -> Answer {
        request(query, &self.shared.snapshot(), self.same_node(), None)
    }

    fn same_node(&self) -> SameNode {
        if self.shared.direct.is_enabled() { SameNode::Direct } else { SameNode::Tunnel }
    }

    fn view(&self, client: &Client, target: SocketAddr) -> NodeView {
        let mut view = NodeView {
            node: self.node.to_string(),
            certificate: None,
            network_namespace: None,
            stops: Vec::new(),
            notes: Vec::new(),
        };
        let absent: Vec<_> = self.hooks.present().into_iter().filter(|(_, present)| !present).collect();
        if !absent.is_empty() {
            let names: Vec<_> = absent.iter().map(|(name, _)| *name).collect();
            view.notes.push(format!("hooks are not attached: {}", names.join(", ")));
        }
        match &client.workload {
            Some(workload) if workload.node == self.node => self.view_source(workload, target, &mut view),
            Some(workload) => view
                .notes
                .push(format!("the source runs on {}: ask there for its certificate and its enrolment", workload.node)),
            None => {}
        }
        view
    }

    fn view_source(&self, workload: &Workload, target: SocketAddr, view: &mut NodeView) {
        if !workload.is_enrolled() {
            return;
        }
        view.network_namespace = self.pods.roster.borrow().namespaces.get(&workload.uid).copied();
        if let Some(waiting) = self.pods.roster.borrow().waiting.get(&workload.uid) {
            let (state, reason) = (waiting.state(), &waiting.reason);
            if waiting.failed {
                view.stops.push(format!("the source could not be enrolled, and its connections are refused: {reason}"));
            } else {
                view.notes.push(format!("the source is not enrolled yet ({state}: {reason})"));
            }
        }
        if mesh_abi::ports::is_reserved(target.port()) {
            view.stops.push(format!("port {} is the mesh's own in an enrolled pod", target.port()));
        }
        self.note_untold(workload, target, view);
        let now = SystemTime::now();
        let held = self.shared.identities.certificates();
        let own = held.iter().find(|held| held.identity == workload.identity);
        view.certificate = own.map(|held| certificate(held, now));
        if let Some(Certificate { expires_in_seconds: Some(0), identity, .. }) = &view.certificate {
            view.stops.push(format!("the certificate of {identity} has ended"));
        }
    }

    /// Says where a pod does not come to a host by its name.
    fn note_untold(&self, workload: &Workload, target: SocketAddr, view: &mut NodeView) {
        let snapshot = self.shared.snapshot();
        let Some(host) = snapshot.service_by_vip(target.ip()).filter(|service| service.entry.is_some()) else {
            return;
        };
        let servers = dns_servers(&snapshot);
        let serves_dns = workload.addresses.iter().any(|address| servers.contains(address));
        let why = match untold(workload, serves_dns) {
            Some(untold) => Some(untold.to_string()),
            None if !self.shared.tells_hosts => Some("the daemon runs with --no-dns-capture".to_owned()),
            None if told(&snapshot, host).is_none() => Some("no pod is told of it (`mesh-ctl analyze`)".to_owned()),
            None => None,
        };
        if let Some(why) = why {
            let host = &host.hostname;
            view.notes.push(format!("the source asks its resolver for {host}, and goes where that says: {why}"));
        }
    }
}

fn bad_request(error: impl ToString) -> Answer {
    refuse(StatusCode::BAD_REQUEST, error, None)
}
