//! VirtualServices to the routes of Services.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use mesh_core::l7::traffic::Subset;
use mesh_core::l7::{Action, BackendTarget, L7, Precedence, RouteTable, Rule, ServiceRoutes};
use mesh_core::policy::HostPattern;
use mesh_core::{LabelSet, Policies, Service, Workload};

use super::not_yet;
use super::policies::{by_age, report};
use super::shadows::{Matches, is_everything};
use crate::code::Code;
use crate::config::Options;
use crate::finding::Finding;
use crate::istio::{HttpRule, MESH, VirtualService};
use crate::object::{Located, ObjectSet};

/// The routes of Services, the oldest VirtualService first.
pub(super) fn routes(
    objects: &ObjectSet,
    options: &Options,
    services: &[Arc<Service>],
    policies: &Policies,
    waypoints: &L7,
    findings: &mut Vec<Finding>,
) -> Vec<ServiceRoutes> {
    if objects.virtual_services.is_empty() {
        return Vec::new();
    }
    let by_hostname = services.iter().map(|service| (&*service.hostname, &**service)).collect();
    let mut translation = Translation { options, by_hostname, policies, waypoints, findings, taken: HashMap::new() };
    let mut routes = Vec::new();
    for located in by_age(&objects.virtual_services, |read| &read.age) {
        report(located, &located.object.remarks, translation.findings);
        translation.virtual_service(located, &mut routes);
    }
    routes
}

struct Translation<'a> {
    options: &'a Options,
    by_hostname: HashMap<&'a str, &'a Service>,
    policies: &'a Policies,
    waypoints: &'a L7,
    findings: &'a mut Vec<Finding>,
    /// Who has the routes of a host for a namespace's clients.
    taken: HashMap<(Arc<str>, Option<Arc<str>>), String>,
}

impl Translation<'_> {
    fn virtual_service(&mut self, located: &Located<VirtualService>, routes: &mut Vec<ServiceRoutes>) {
        let read = &*located.object;
        self.report_gateways(located);
        if !read.http.iter().any(|http| http.gateways.iter().flatten().any(|gateway| gateway == MESH)) {
            return;
        }
        let hosts = self.hosts(located);
        if hosts.is_empty() {
            return; // What is wrong with its destinations matters to nobody.
        }
        let rules: Vec<Arc<Rule>> =
            read.http.iter().filter_map(|http| self.rule(http, located)).map(Arc::new).collect();
        self.report_shadows(&rules, located);
        let table = Arc::new(RouteTable::of_any_host(rules, Precedence::AsWritten));
        for (hostname, index) in hosts {
            let clients: Vec<Option<Arc<str>>> = match &read.exported_to {
                None => vec![None],
                Some(namespaces) => namespaces.iter().cloned().map(Some).collect(),
            };
            for clients in clients {
                let key = (Arc::clone(&hostname), clients.clone());
                if let Some(older) = self.taken.get(&key) {
                    let message = format!("VirtualService {older} is older and about {hostname}: it is in force there");
                    let finding = Finding::new(Code::RouteConflict, (*located.origin).clone(), message);
                    self.findings.push(finding.at(format!("spec.hosts[{index}]")));
                    continue;
                }
                self.taken.insert(key, read.name.to_string());
                let (hostname, table) = (Arc::clone(&hostname), Arc::clone(&table));
                routes.push(ServiceRoutes { hostname, port: None, clients, table });
            }
        }
    }

    /// Rules for gateways of Istio's own kind are not in force.
    fn report_gateways(&mut self, located: &Located<VirtualService>) {
        let gateways = located.object.http.iter().flat_map(|http| http.gateways.iter().flatten());
        let named: BTreeSet<&str> = gateways.map(String::as_str).filter(|gateway| *gateway != MESH).collect();
        for gateway in named {
            let message = format!("requests that come by gateway {gateway} are not routed yet");
            let finding = Finding::new(Code::FieldNotHonoured, (*located.origin).clone(), message);
            self.findings.push(finding.at("spec.gateways"));
        }
    }

    /// Says which rules get no request, for those before them have all.
    fn report_shadows(&mut self, rules: &[Arc<Rule>], located: &Located<VirtualService>) {
        let (mut matches, mut whole) = (Matches::default(), None);
        for rule in rules {
            let holder = match whole {
                Some(holder) => Some(holder),
                None if rule.matches.is_empty() => None,
                None => {
                    // Every match is taken, whether or not those before it were free.
                    let holders: Vec<_> =
                        rule.matches.iter().map(|matched| matches.take(None, matched, &rule.at)).collect();
                    holders.into_iter().collect::<Option<Vec<_>>>().and_then(|holders| holders.last().copied())
                }
            };
            if let Some(holder) = holder {
                let message = format!("no request gets here: {holder} has them all");
                let finding = Finding::new(Code::RuleShadowed, (*located.origin).clone(), message);
                self.findings.push(finding.at(format!("spec.http[{}]", rule.at.index)));
            } else if rule.matches.is_empty() || rule.matches.iter().any(is_everything) {
                whole = Some(&rule.at);
            }
        }
    }

    /// The Services that it is about, with the place of the host that names them.
    fn hosts(&mut self, located: &Located<VirtualService>) -> Vec<(Arc<str>, usize)> {
        let read = &*located.object;
        let mut found = Vec::new();
        for (index, written) in read.hosts.iter().enumerate() {
            let host = full(written, &read.name.namespace, self.options);
            match &host {
                HostPattern::Exact(host) => match self.by_hostname.get(&**host) {
                    Some(service) => {
                        found.push((Arc::clone(&service.hostname), index));
                        if self.waypoints.waypoint_of(service).is_none() {
                            let message = format!("{host} has no waypoint, and nobody else routes requests");
                            let finding = Finding::new(Code::NoWaypoint, (*located.origin).clone(), message);
                            self.findings.push(finding.at(format!("spec.hosts[{index}]")));
                        }
                    }
                    None => {
                        let message = format!("{host} is no Service's");
                        let finding = Finding::new(Code::RouteOfNoService, (*located.origin).clone(), message);
                        self.findings.push(finding.at(format!("spec.hosts[{index}]")));
                    }
                },
                HostPattern::Suffix(_) => {
                    let mut matching: Vec<_> =
                        self.by_hostname.values().filter(|service| host.matches(&service.hostname)).collect();
                    matching.sort_by_key(|service| &service.hostname);
                    found.extend(matching.into_iter().map(|service| (Arc::clone(&service.hostname), index)));
                }
            }
        }
        found
    }

    /// The rule as it is in force for clients in the mesh; none where it is for gateways alone.
    fn rule(&mut self, http: &HttpRule, located: &Located<VirtualService>) -> Option<Rule> {
        let in_mesh = |gateways: &[String]| gateways.iter().any(|gateway| gateway == MESH);
        let mut rule = http.rule.clone();
        if rule.matches.is_empty() {
            http.gateways.iter().any(|gateways| in_mesh(gateways)).then_some(())?;
        } else {
            let matches = rule.matches.into_iter().zip(&http.gateways);
            rule.matches = matches.filter(|(_, gateways)| in_mesh(gateways)).map(|(matched, _)| matched).collect();
            if rule.matches.is_empty() {
                return None;
            }
        }
        let place = format!("spec.http[{}]", rule.at.index);
        if let Action::Forward(backends) = &mut rule.action {
            for (index, backend) in backends.iter_mut().enumerate() {
                let field = format!("{place}.route[{index}].destination");
                self.resolve(&mut backend.target, located, &field);
            }
        }
        for (index, mirror) in rule.mirrors.iter_mut().enumerate() {
            self.resolve(&mut mirror.target, located, &format!("{place}.mirrors[{index}]"));
        }
        for message in not_yet::parts(&rule) {
            let finding = Finding::new(Code::FieldNotHonoured, (*located.origin).clone(), message);
            self.findings.push(finding.at(place.clone()));
        }
        Some(rule)
    }

    /// Gives a destination its full host name, and says what is wrong with it; such a share is answered with 503, as by Istio.
    fn resolve(&mut self, target: &mut BackendTarget, located: &Located<VirtualService>, field: &str) {
        let BackendTarget::Service { hostname, port, subset } = target else {
            return;
        };
        let namespace = &located.object.name.namespace;
        let HostPattern::Exact(host) = full(hostname, namespace, self.options) else {
            return; // Reading refuses a star.
        };
        let mut unresolved = |code, field: String, reason: String| {
            let finding = Finding::new(code, (*located.origin).clone(), reason.clone());
            self.findings.push(finding.at(field));
            BackendTarget::Unresolved { status: 503, reason: reason.into() }
        };
        let Some(service) = self.by_hostname.get(&*host) else {
            *target = unresolved(Code::BackendNotFound, format!("{field}.host"), format!("{host} is no Service's"));
            return;
        };
        if let Some(number) = *port
            && !service.ports.iter().any(|declared| declared.port == number)
        {
            let message = format!("{host} declares no port {number}");
            *target = unresolved(Code::BackendNotFound, format!("{field}.port.number"), message);
            return;
        }
        if let Some(name) = subset {
            let nobody = LabelSet::default();
            let rule = self.policies.client_tls_for(Some((namespace, &nobody)), &host, &service.namespace);
            let Some(defined) = rule.and_then(|rule| rule.traffic.subsets.get(name)) else {
                let message = format!("no DestinationRule defines subset {name} of {host}");
                *target = unresolved(Code::SubsetNotDefined, format!("{field}.subset"), message);
                return;
            };
            if !has_pods(service, defined) {
                let message = format!("of the pods of {host}, none has the labels of subset {name}");
                let finding = Finding::new(Code::SubsetWithoutPods, (*located.origin).clone(), message);
                self.findings.push(finding.at(format!("{field}.subset")));
            }
        }
        *hostname = host;
    }
}

/// Whether any endpoint is of the subset. Of a Service without endpoints that is said already.
fn has_pods(service: &Service, subset: &Subset) -> bool {
    let Some(labels) = &subset.labels else {
        return true;
    };
    let mut workloads = service.ports.iter().flat_map(|port| &port.endpoints).map(|endpoint| &endpoint.workload);
    let selected = |workload: &Option<Arc<Workload>>| workload.as_ref().is_some_and(|pod| labels.selects(&pod.labels));
    workloads.clone().next().is_none() || workloads.any(selected)
}

/// A host in full: one without a dot is a Service of the object's own namespace.
pub(super) fn full(host: &str, namespace: &str, options: &Options) -> HostPattern {
    match host.strip_prefix('*') {
        Some(end) => HostPattern::Suffix(end.into()),
        None if host.contains('.') => HostPattern::Exact(host.into()),
        None => HostPattern::Exact(format!("{host}.{namespace}.svc.{}", options.cluster_domain).into()),
    }
}
