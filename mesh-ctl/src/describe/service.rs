//! A service.

use anyhow::bail;
use mesh_admin::{Policy, PolicyRef, Service as Listed};
use mesh_core::Snapshot;
use mesh_core::policy::effective_mode;
use serde::Serialize;

use super::{Described, Named, PortMode, RouteLine, lines, mode_text, policies, policy_text};
use crate::cluster::Cluster;

/// Pods that are named at most.
const SHOWN: usize = 10;

/// What the mesh makes of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Service {
    #[serde(flatten)]
    service: Listed,
    hostname: String,
    /// Pods behind it that are part of the mesh.
    enrolled: Vec<String>,
    /// Pods behind it that are not, and why.
    outside: Vec<String>,
    /// What its pods take; several where they differ.
    modes: Vec<PortMode>,
    /// Policies about its pods.
    policies: Vec<Policy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<String>,
    /// Policies that its waypoint enforces.
    waypoint_policies: Vec<String>,
    routes: Vec<RouteLine>,
    /// The DestinationRule for all clients that no other is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_rule: Option<String>,
}

/// Looks at a service.
pub(super) async fn describe(cluster: &Cluster, named: &Named) -> anyhow::Result<Service> {
    let (namespace, name) = named.place(cluster);
    let config = named.reading.of_cluster(cluster).await?.publish();
    match config.snapshot.service(namespace, name) {
        Some(service) => Ok(Service::of(&config.snapshot, service)),
        None => bail!("no service {namespace}/{name}: `mesh-ctl service list -n {namespace}` shows those there are"),
    }
}

impl Service {
    fn of(snapshot: &Snapshot, service: &mesh_core::Service) -> Self {
        let l7 = snapshot.l7();
        let waypoint = l7.waypoint_of(service);
        let enforced = waypoint.map(|waypoint| snapshot.policies().for_waypoint(waypoint, Some(service)));
        let enforced = enforced.into_iter().flatten().map(|policy| {
            policy_text(&PolicyRef::Authorization(policy).describe(snapshot.policies().root_namespace()))
        });
        let tables = l7.routes().iter().filter(|routes| *routes.hostname == *service.hostname);
        let rules = tables.flat_map(|routes| routes.table.hosts()).flat_map(|host| &host.rules);
        let rule = snapshot.policies().client_tls_for(None, &service.hostname, &service.namespace);
        let mut described = Self {
            service: Listed::of(snapshot, service),
            hostname: service.hostname.to_string(),
            enrolled: Vec::new(),
            outside: Vec::new(),
            modes: Vec::new(),
            policies: Vec::new(),
            waypoint: waypoint.map(ToString::to_string),
            waypoint_policies: enforced.collect(),
            routes: rules.map(|rule| RouteLine::of(rule)).collect(),
            destination_rule: rule.map(|rule| rule.name.to_string()),
        };
        described.look_at_pods(snapshot, service);
        described
    }

    fn look_at_pods(&mut self, snapshot: &Snapshot, service: &mesh_core::Service) {
        for endpoint in service.ports.iter().flat_map(|port| &port.endpoints) {
            let Some(pod) = &endpoint.workload else { continue };
            let name = format!("{}/{}", pod.namespace, pod.name);
            if let mesh_core::Enrolment::Outside(reason) = pod.enrolment {
                let told = format!("{name}: {reason}");
                if !self.outside.contains(&told) {
                    self.outside.push(told);
                }
                continue;
            }
            let port = endpoint.address.port();
            let mode = PortMode { port: Some(port), mode: (&effective_mode(snapshot, pod, port)).into() };
            if !self.modes.iter().any(|known| known.port == mode.port && known.mode == mode.mode) {
                self.modes.push(mode);
            }
            for policy in policies(snapshot, pod) {
                if !self.policies.contains(&policy) {
                    self.policies.push(policy);
                }
            }
            if !self.enrolled.contains(&name) {
                self.enrolled.push(name);
            }
        }
    }
}

impl Described for Service {
    fn text(&self) -> String {
        let (mut text, service) = (String::new(), &self.service);
        let addresses: Vec<String> = service.addresses.iter().map(ToString::to_string).collect();
        let at = if addresses.is_empty() { "headless".to_owned() } else { addresses.join(", ") };
        lines(&mut text, "service", [format!("{}/{} ({}), {at}", service.namespace, service.name, self.hostname)]);
        let ports = service.ports.iter().map(|port| format!("{}/{}: {} ready", port.port, port.protocol, port.ready));
        lines(&mut text, "ports", ports);
        lines(&mut text, "in the mesh", shortened(&self.enrolled));
        lines(&mut text, "outside", shortened(&self.outside));
        lines(&mut text, "mode", self.modes.iter().map(mode_text));
        lines(&mut text, "policies", or(self.policies.iter().map(policy_text).collect(), "none is about its pods"));
        lines(&mut text, "waypoint", [self.waypoint.clone().unwrap_or_else(|| "none".to_owned())]);
        lines(&mut text, "there", self.waypoint_policies.clone());
        let without = if self.waypoint.is_some() { "none: requests go as they are" } else { "none" };
        lines(&mut text, "routes", or(self.routes.iter().map(RouteLine::text).collect(), without));
        if self.waypoint.is_none() && !self.routes.is_empty() {
            lines(
                &mut text,
                "note",
                ["routes act at a waypoint, and it has none: `mesh-ctl waypoint apply`".to_owned()],
            );
        }
        lines(&mut text, "clients", self.destination_rule.iter().map(|rule| format!("DestinationRule {rule}")));
        text
    }

    fn is_well(&self) -> bool {
        self.waypoint.is_some() || self.routes.is_empty()
    }
}

fn or(values: Vec<String>, without: &str) -> Vec<String> {
    if values.is_empty() { vec![without.to_owned()] } else { values }
}

fn shortened(names: &[String]) -> Vec<String> {
    let more = names.len().saturating_sub(SHOWN);
    let rest = (more > 0).then(|| format!("and {more} more (-o json shows them)"));
    names.iter().take(SHOWN).cloned().chain(rest).collect()
}
