//! VirtualServices to the routes of Services, and of Istio's Gateways.

mod connections;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use mesh_core::l7::traffic::Subset;
use mesh_core::l7::{Action, BackendTarget, L7, Precedence, RouteTable, Rule, ServiceConnections, ServiceRoutes};
use mesh_core::policy::HostPattern;
use mesh_core::{LabelSet, Policies, Protocol, Service, Workload};

use super::delegates::{Delegates, WrittenRule};
use super::gateways::{Routes, VirtualServiceRoutes};
use super::policies::{by_age, report};
use super::shadows::shadowed;
use crate::code::Code;
use crate::config::Options;
use crate::finding::Finding;
use crate::istio::{HttpRule, MESH, VirtualService};
use crate::object::{Key, Located, ObjectSet};

/// What VirtualServices say, the oldest first.
#[derive(Default)]
pub(super) struct Said {
    /// The routes of Services.
    pub(super) routes: Vec<ServiceRoutes>,
    /// The rules of connections to Services.
    pub(super) connections: Vec<ServiceConnections>,
    /// The routes of gateways.
    pub(super) at_gateways: VirtualServiceRoutes,
}

/// Reads them all.
pub(super) fn routes(
    objects: &ObjectSet,
    options: &Options,
    services: &[Arc<Service>],
    policies: &Policies,
    waypoints: &L7,
    findings: &mut Vec<Finding>,
) -> Said {
    if objects.virtual_services.is_empty() {
        return Said::default();
    }
    let by_hostname = services.iter().map(|service| (&*service.hostname, &**service)).collect();
    let taken = services.iter().filter(|service| waypoints.waypoint_of(service).is_some());
    let mut translation = Translation {
        objects,
        options,
        by_hostname,
        with_waypoint: taken.map(|service| &*service.namespace).collect(),
        policies,
        waypoints,
        findings,
        taken: HashMap::new(),
        taken_connections: HashMap::new(),
        said: Said::default(),
    };
    let mut delegates = Delegates::of(&objects.virtual_services);
    for located in by_age(&objects.virtual_services, |read| &read.age) {
        report(located, &located.object.remarks, translation.findings);
        if located.object.is_delegate() {
            continue;
        }
        let rules = delegates.expand(located, translation.findings);
        translation.at_gateways(located, &rules);
        translation.in_mesh(located, &rules);
    }
    delegates.report_unused(translation.findings);
    translation.said
}

/// Whose clients hosts are for.
type Audience = (Arc<str>, Option<Arc<str>>);

struct Translation<'a> {
    objects: &'a ObjectSet,
    options: &'a Options,
    by_hostname: HashMap<&'a str, &'a Service>,
    /// Namespaces of Services that have a waypoint.
    with_waypoint: HashSet<&'a str>,
    policies: &'a Policies,
    waypoints: &'a L7,
    findings: &'a mut Vec<Finding>,
    /// Who has the routes of a host for a namespace's clients.
    taken: HashMap<Audience, String>,
    /// The same of its connections.
    taken_connections: HashMap<Audience, String>,
    said: Said,
}

impl Translation<'_> {
    /// What it says to clients in the mesh.
    fn in_mesh(&mut self, located: &Located<VirtualService>, written: &[WrittenRule<'_>]) {
        let read = &*located.object;
        let of_requests = read.http.iter().any(|http| http.gateways.iter().flatten().any(|gateway| gateway == MESH));
        let matches = || read.connections.iter().flat_map(|rule| &rule.matches);
        let of_connections = matches().any(|matched| matched.gateways.iter().any(|gateway| gateway == MESH));
        if !of_requests && !of_connections {
            return;
        }
        let hosts = self.hosts(located);
        if hosts.is_empty() {
            return; // What is wrong with its destinations matters to nobody.
        }
        if of_requests {
            self.requests_in_mesh(located, written, &hosts);
        }
        if of_connections {
            self.connections_in_mesh(located, &hosts);
        }
    }

    fn requests_in_mesh(
        &mut self,
        located: &Located<VirtualService>,
        written: &[WrittenRule<'_>],
        hosts: &[(Arc<str>, usize)],
    ) {
        let read = &*located.object;
        let rules: Vec<(Arc<Rule>, &Located<VirtualService>)> = written
            .iter()
            .filter_map(|written| Some((Arc::new(self.rule(&written.http, MESH, written.by)?), written.by)))
            .collect();
        self.report_shadows(&rules);
        let rules = rules.into_iter().map(|(rule, _)| rule).collect();
        let table = Arc::new(RouteTable::of_any_host(rules, Precedence::AsWritten));
        for (hostname, index) in hosts {
            for clients in clients_of(read) {
                let audience = (Arc::clone(hostname), clients.clone());
                if !take(&mut self.taken, audience, (located, *index), self.findings) {
                    continue;
                }
                let service = self.by_hostname.get(&**hostname);
                let routes_of = |of_host_in| ServiceRoutes {
                    hostname: Arc::clone(hostname),
                    of_host_in,
                    port: None,
                    clients: clients.clone(),
                    table: Arc::clone(&table),
                };
                if service.is_none_or(|service| service.entry.is_some()) {
                    // Requests that name it may come in by any Service of the namespace.
                    self.said.routes.push(routes_of(Some(Arc::clone(&read.name.namespace))));
                }
                if service.is_some() {
                    self.said.routes.push(routes_of(None));
                }
            }
        }
    }

    /// What it says of the traffic of gateways.
    fn at_gateways(&mut self, located: &Located<VirtualService>, written: &[WrittenRule<'_>]) {
        let read = &*located.object;
        let of_requests = read.http.iter().flat_map(|http| http.gateways.iter().flatten());
        let matches = read.connections.iter().flat_map(|rule| &rule.matches);
        let of_connections = matches.flat_map(|matched| &matched.gateways);
        let named: BTreeSet<&String> = of_requests.chain(of_connections).filter(|gateway| *gateway != MESH).collect();
        let hosts: Vec<_> = read
            .hosts
            .iter()
            .map(|host| full(&host.to_ascii_lowercase(), &read.name.namespace, self.options))
            .collect();
        let namespace = &read.name.namespace;
        for gateway in named {
            let key = gateway_key(gateway, namespace);
            if !self.objects.istio_gateways.contains_key(&key) {
                let message = format!("there is no Gateway {}/{} of networking.istio.io", key.0, key.1);
                let finding = Finding::new(Code::NoSuchGateway, (*located.origin).clone(), message);
                self.findings.push(finding.at("spec.gateways"));
                continue;
            }
            let rules = written
                .iter()
                .filter_map(|written| self.rule(&written.http, gateway, written.by))
                .map(Arc::new)
                .collect();
            self.said.at_gateways.rules.entry(key.clone()).or_default().push(said_by(located, &hosts, rules));
            let said = read.connections.iter().flat_map(|rule| self.connections(rule, gateway, located)).collect();
            self.said.at_gateways.connections.entry(key).or_default().push(said_by(located, &hosts, said));
        }
    }

    /// A port that is not named is the Service's only one. Of several it is the one that was asked for; at a gateway there is
    /// none such, for its own ports are other ones.
    fn give_port(&mut self, target: &mut BackendTarget, gateway: &str, located: &Located<VirtualService>, field: &str) {
        let BackendTarget::Service { hostname, port: port @ None, .. } = target else { return };
        let ports = self.by_hostname.get(&**hostname).into_iter().flat_map(|service| &service.ports);
        let mut carried = ports.filter(|port| port.protocol == Protocol::Tcp);
        match (carried.next(), carried.next()) {
            (Some(only), None) => *port = Some(only.port),
            _ if gateway == MESH => {}
            _ => {
                let message = format!("{hostname} has several ports: say which");
                let finding = Finding::new(Code::BackendNotFound, (*located.origin).clone(), message.clone());
                self.findings.push(finding.at(format!("{field}.port")));
                *target = BackendTarget::Unresolved { status: 503, reason: message.into() };
            }
        }
    }

    /// Says which rules get no request, for those before them have all.
    fn report_shadows(&mut self, rules: &[(Arc<Rule>, &Located<VirtualService>)]) {
        for (at, holder) in shadowed(rules.iter().map(|(rule, _)| rule)) {
            let Some((_, located)) = rules.iter().find(|(rule, _)| std::ptr::eq(&raw const rule.at, at)) else {
                continue;
            };
            let message = format!("no request gets here: {holder} has them all");
            let finding = Finding::new(Code::RuleShadowed, (*located.origin).clone(), message);
            self.findings.push(finding.at(format!("spec.http[{}]", at.index)));
        }
    }

    /// The Services that it is about, with the place of the host that names them.
    fn hosts(&mut self, located: &Located<VirtualService>) -> Vec<(Arc<str>, usize)> {
        let read = &*located.object;
        let namespace = &read.name.namespace;
        // A request that names a host of no Service's, or of a ServiceEntry's, may come in by any Service beside the rule.
        let by_name = self.with_waypoint.contains(&**namespace);
        let mut found = Vec::new();
        for (index, written) in read.hosts.iter().enumerate() {
            let host = full(written, namespace, self.options);
            let of_cluster = matches!(&host, HostPattern::Exact(host) if self.is_of_cluster(host));
            let mut tell = |code, message: String| {
                let finding = Finding::new(code, (*located.origin).clone(), message);
                self.findings.push(finding.at(format!("spec.hosts[{index}]")));
            };
            let routed = |service: &Service| {
                self.waypoints.waypoint_of(service).is_some() || (service.entry.is_some() && by_name)
            };
            let unrouted =
                |service: &Service| format!("{} has no waypoint, and nobody else routes requests", service.hostname);
            match &host {
                HostPattern::Exact(host) => match self.by_hostname.get(&**host) {
                    Some(service) => {
                        found.push((Arc::clone(&service.hostname), index));
                        if !routed(service) {
                            tell(Code::NoWaypoint, unrouted(service));
                        }
                    }
                    None if of_cluster => tell(Code::RouteOfNoService, format!("{host} is no Service's")),
                    // The name of something outside: it is in force for requests that name it.
                    None => {
                        found.push((host.to_ascii_lowercase().into(), index));
                        if !by_name {
                            let message = format!(
                                "{host} is no Service's, and no Service of {namespace} has a waypoint, by which \
                                 requests that name it could come"
                            );
                            tell(Code::RouteOfNoService, message);
                        }
                    }
                },
                HostPattern::Suffix(end) => {
                    let mut matching: Vec<_> =
                        self.by_hostname.values().filter(|service| host.matches(&service.hostname)).collect();
                    matching.sort_by_key(|service| &service.hostname);
                    if matching.is_empty() {
                        tell(Code::RouteOfNoService, format!("no Service's host ends in {end:?}"));
                    } else if let Some(service) = matching.iter().find(|service| !routed(service)) {
                        tell(Code::NoWaypoint, unrouted(service));
                    }
                    found.extend(matching.into_iter().map(|service| (Arc::clone(&service.hostname), index)));
                }
            }
        }
        found
    }

    /// Whether a host is written as the cluster's Services are: in full, or by the name and a namespace that is there.
    fn is_of_cluster(&self, host: &str) -> bool {
        let in_full = host.ends_with(&format!(".svc.{}", self.options.cluster_domain));
        let mut parts = host.strip_suffix(".svc").unwrap_or(host).split('.');
        let (_, namespace, rest) = (parts.next(), parts.next(), parts.next());
        in_full || (rest.is_none() && namespace.is_some_and(|it| self.objects.namespaces.contains_key(it)))
    }

    /// The rule as it is in force at a gateway, or for clients in the mesh; none where it is for others alone.
    fn rule(&mut self, http: &HttpRule, gateway: &str, located: &Located<VirtualService>) -> Option<Rule> {
        let in_mesh = |gateways: &[String]| gateways.iter().any(|named| named == gateway);
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
                self.give_port(&mut backend.target, gateway, located, &field);
            }
        }
        for (index, mirror) in rule.mirrors.iter_mut().enumerate() {
            let field = format!("{place}.mirrors[{index}]");
            self.resolve(&mut mirror.target, located, &field);
            self.give_port(&mut mirror.target, gateway, located, &field);
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
        let visible = self.by_hostname.get(&*host).filter(|service| service.is_visible_to(Some(namespace)));
        let Some(service) = visible else {
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

/// The namespaces whose clients a VirtualService is for; none for all.
fn clients_of(read: &VirtualService) -> Vec<Option<Arc<str>>> {
    match &read.exported_to {
        None => vec![None],
        Some(namespaces) => namespaces.iter().cloned().map(Some).collect(),
    }
}

/// Whether a VirtualService is the first that is about a host for those clients; it has the host from then on.
fn take(
    taken: &mut HashMap<Audience, String>,
    audience: Audience,
    (located, index): (&Located<VirtualService>, usize),
    findings: &mut Vec<Finding>,
) -> bool {
    if let Some(older) = taken.get(&audience) {
        let message = format!("VirtualService {older} is older and about {}: it is in force there", audience.0);
        let finding = Finding::new(Code::RouteConflict, (*located.origin).clone(), message);
        findings.push(finding.at(format!("spec.hosts[{index}]")));
        return false;
    }
    taken.insert(audience, located.object.name.to_string());
    true
}

/// What a VirtualService says of the traffic of a gateway.
fn said_by<T>(located: &Located<VirtualService>, hosts: &[HostPattern], said: Vec<T>) -> Routes<T> {
    let VirtualService { name, exported_to, .. } = &*located.object;
    Routes {
        namespace: Arc::clone(&name.namespace),
        exported_to: exported_to.clone(),
        origin: Arc::clone(&located.origin),
        hosts: hosts.to_vec(),
        said,
    }
}

/// A gateway by the name that a VirtualService of that namespace gives it.
fn gateway_key(written: &str, namespace: &Arc<str>) -> Key {
    match written.split_once('/') {
        Some((".", name)) => (Arc::clone(namespace), name.into()),
        Some((namespace, name)) => (namespace.into(), name.into()),
        None => (Arc::clone(namespace), written.into()),
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
