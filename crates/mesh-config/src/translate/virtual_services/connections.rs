//! Rules of connections (`tls`, `tcp`): in the mesh, and at gateways.

use std::sync::Arc;

use mesh_core::l7::gateway::ConnectionRoute;
use mesh_core::l7::{self, Backend, ServiceConnections};
use mesh_core::{Protocol, Service, Speaks};

use super::super::gateways::pattern;
use super::{Translation, clients_of, take};
use crate::code::Code;
use crate::finding::Finding;
use crate::istio::{ConnectionMatch, ConnectionRule, MESH, VirtualService};
use crate::object::Located;

impl Translation<'_> {
    /// What it says of connections to clients in the mesh.
    pub(super) fn connections_in_mesh(&mut self, located: &Located<VirtualService>, hosts: &[(Arc<str>, usize)]) {
        let read = &*located.object;
        let rules: Arc<[_]> = read.connections.iter().filter_map(|rule| self.connection_rule(rule, located)).collect();
        for (hostname, index) in hosts {
            let Some(service) = self.by_hostname.get(&**hostname).copied() else { continue };
            for clients in clients_of(read) {
                let audience = (Arc::clone(hostname), clients.clone());
                if take(&mut self.taken_connections, audience, (located, *index), self.findings) {
                    let (hostname, rules) = (Arc::clone(hostname), Arc::clone(&rules));
                    self.said.connections.push(ServiceConnections { hostname, clients, rules });
                }
            }
            for rule in rules.iter().filter(|rule| is_of_requests(rule, service)) {
                let field = format!("spec.{}[{}]", rule.at.name.as_deref().unwrap_or_default(), rule.at.index);
                let message =
                    format!("the ports of {hostname} that it is for are declared to speak HTTP: http routes requests");
                self.findings.push(Finding::new(Code::WithoutEffect, (*located.origin).clone(), message).at(field));
            }
        }
    }

    /// A rule of connections as it is in force for clients in the mesh; none where it is for others alone.
    fn connection_rule(
        &mut self,
        rule: &ConnectionRule,
        located: &Located<VirtualService>,
    ) -> Option<l7::ConnectionRule> {
        let in_mesh = |matched: &&ConnectionMatch| matched.gateways.iter().any(|named| named == MESH);
        let as_model = |matched: &ConnectionMatch| l7::ConnectionMatch {
            port: matched.port,
            addresses: matched.addresses.clone(),
            client: matched.client.clone(),
            servers: matched.servers.iter().map(|server| pattern(server)).collect(),
        };
        let matches: Vec<_> = rule.matches.iter().filter(in_mesh).map(as_model).collect();
        let of_tls = rule.at.name.as_deref() == Some("tls");
        (!matches.is_empty()).then(|| l7::ConnectionRule {
            at: rule.at.clone(),
            of_tls,
            matches,
            backends: self.backends(rule, MESH, located),
        })
    }

    /// Where a rule of connections leads.
    fn backends(&mut self, rule: &ConnectionRule, gateway: &str, located: &Located<VirtualService>) -> Vec<Backend> {
        let mut backends = rule.backends.clone();
        let list = rule.at.name.as_deref().unwrap_or_default();
        for (index, backend) in backends.iter_mut().enumerate() {
            let field = format!("spec.{list}[{}].route[{index}].destination", rule.at.index);
            self.resolve(&mut backend.target, located, &field);
            self.give_port(&mut backend.target, gateway, located, &field);
        }
        backends
    }

    /// A rule of connections as a gateway has it: once for each match.
    pub(super) fn connections(
        &mut self,
        rule: &ConnectionRule,
        gateway: &str,
        located: &Located<VirtualService>,
    ) -> Vec<(Option<u16>, ConnectionRoute)> {
        let of_gateway = |matched: &&ConnectionMatch| {
            !matched.is_of_mesh_alone() && matched.gateways.iter().any(|named| named == gateway)
        };
        let matches: Vec<_> = rule.matches.iter().filter(of_gateway).collect();
        if matches.is_empty() {
            return Vec::new();
        }
        let backends = self.backends(rule, gateway, located);
        let route = |matched: &ConnectionMatch| {
            let hosts = matched.servers.iter().map(|server| pattern(server)).collect();
            (matched.port, ConnectionRoute { at: rule.at.clone(), hosts, backends: backends.clone() })
        };
        matches.into_iter().map(route).collect()
    }
}

/// Whether a rule of connections is for ports alone that are declared to speak HTTP, whose requests are read.
fn is_of_requests(rule: &l7::ConnectionRule, service: &Service) -> bool {
    let is_for = |port: u16| rule.matches.iter().any(|matched| matched.port.is_none_or(|own| own == port));
    let carried = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp && is_for(port.port));
    let mut speaks = carried.map(|port| matches!(port.speaks, Speaks::Http | Speaks::Http2)).peekable();
    speaks.peek().is_some() && speaks.all(|is_http| is_http)
}
