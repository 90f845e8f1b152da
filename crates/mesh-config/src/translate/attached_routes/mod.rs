//! Routes of the Gateway API: to the Services that they attach themselves to, and to listeners of Gateways.

mod known;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use mesh_core::l7::rule::Mirror;
use mesh_core::l7::{
    self, Action, Backend, BackendTarget, HostRules, L7, Precedence, RequestMatch, RouteTable, Rule, ServiceRoutes,
};
use mesh_core::{PolicyName, Protocol, Service};

use self::known::Outcome;
pub(super) use self::known::{KnownRoutes, is_seen};
use super::gateways::{Attachment, ListenerRoutes, NotAttached, attach};
use super::policies::{by_age, report};
use super::shadows::Matches;
use crate::code::Code;
use crate::finding::Finding;
use crate::gateway_api::{BackendRef, ConnectionRoute, Parent, Route, RouteRule};
use crate::istio::Remark;
use crate::object::{Key, Located, ObjectSet};
use crate::status::{ParentStatus, Refusal, RouteStatus};

/// The routes of Services, and those of listeners; rules of several routes for one Service are one table, those of the oldest
/// route first. What is known of a route is what comes of it; what comes of the others is known after that.
pub(super) fn routes(
    (objects, known): (&ObjectSet, &mut KnownRoutes),
    services: &[Arc<Service>],
    (waypoints, before): (&L7, &L7),
    of_virtual_services: &[ServiceRoutes],
    findings: &mut Vec<Finding>,
) -> (Vec<ServiceRoutes>, ListenerRoutes, RouteStatuses) {
    let mut known_before = std::mem::take(known);
    if [objects.http_routes.len(), objects.grpc_routes.len(), objects.tls_routes.len(), objects.tcp_routes.len()]
        == [0; 4]
    {
        return Default::default();
    }
    let by_name = services.iter().map(|service| ((&*service.namespace, &*service.name), &**service)).collect();
    let mut translation = Translation {
        objects,
        by_name,
        waypoints,
        findings,
        taken: of_virtual_services.iter().map(|routes| &*routes.hostname).collect(),
        attached: BTreeMap::new(),
        listeners: ListenerRoutes::default(),
        statuses: RouteStatuses::new(),
        status: RouteStatus::default(),
        everything: RequestMatch::default(),
    };
    let mut all: Vec<&Located<Route>> = by_age(&objects.http_routes, |route| &route.age);
    all.extend(by_age(&objects.grpc_routes, |route| &route.age));
    all.sort_by(|a, b| a.object.age.cmp(&b.object.age));
    for located in all {
        let outcome = match known_before.take(located) {
            Some(outcome) => {
                translation.findings.extend(outcome.findings.iter().cloned());
                outcome
            }
            None => translation.route(located),
        };
        translation.add(&outcome);
        known.insert(outcome);
    }
    let mut connections: Vec<_> = by_age(&objects.tls_routes, |route| &route.age);
    connections.extend(by_age(&objects.tcp_routes, |route| &route.age));
    for located in connections {
        report(located, &located.object.remarks, translation.findings);
        translation.connection_route(located);
    }
    translation.report_shadows();
    let before = TablesBefore::of(before);
    let tables = |(subject, rules): (Subject, Attached)| rules.tables(&subject, &before);
    let of_services = translation.attached.into_iter().flat_map(tables).collect();
    (of_services, translation.listeners, translation.statuses)
}

/// What is to be said of routes, by kind and name.
type RouteStatuses = BTreeMap<(&'static str, Key), RouteStatus>;

/// A Service's host name, and the namespace whose clients alone are meant.
type Subject = (Arc<str>, Option<Arc<str>>);

/// A route that refers to something.
struct Referrer<'a> {
    kind: &'a str,
    name: &'a PolicyName,
    parents: &'a [Parent],
}

impl Referrer<'_> {
    /// Whether the route is for what the mesh sends to that Service, and for nothing else: its clients reach it anyway, so that
    /// nobody has to grant a consumer's route the way there (GEP-1426).
    fn is_attached_to(&self, namespace: &str, name: &str) -> bool {
        let (mut all, mut services) = (self.parents.iter(), self.parents.iter());
        !all.any(|parent| matches!(parent, Parent::Listeners(_)))
            && services.any(|parent| matches!(parent, Parent::Service { namespace: at, name: own, .. } if at == namespace && own == name))
    }
}

/// The rules of a Service, oldest first, with the place of each.
#[derive(Default)]
struct Attached {
    /// The port, none for all, with the rule.
    rules: Vec<(Option<u16>, Arc<Rule>)>,
}

/// What a table of a Service is for: its host name, the port and the clients.
type TablePlace<'a> = (&'a str, Option<u16>, Option<&'a str>);

/// The tables of Services that there were before.
struct TablesBefore<'a>(HashMap<TablePlace<'a>, &'a Arc<RouteTable>>);

impl<'a> TablesBefore<'a> {
    fn of(l7: &'a L7) -> Self {
        let of_services = l7.routes().iter().filter(|routes| routes.of_host_in.is_none());
        let place = |of: &'a ServiceRoutes| ((&*of.hostname, of.port, of.clients.as_deref()), &of.table);
        Self(of_services.map(place).collect())
    }
}

impl Attached {
    /// A table for every port that is named, and one for the others; the one from before where it has the same rules.
    fn tables(self, (hostname, clients): &Subject, before: &TablesBefore<'_>) -> Vec<ServiceRoutes> {
        let mut ports: Vec<Option<u16>> = self.rules.iter().map(|(port, _)| *port).collect();
        ports.push(None);
        ports.sort_unstable();
        ports.dedup();
        let table = |port: Option<u16>| {
            let applying = self.rules.iter().filter(|(own, _)| own.is_none() || *own == port);
            let rules: Vec<_> = applying.map(|(_, rule)| Arc::clone(rule)).collect();
            let before = before.0.get(&(&**hostname, port, clients.as_deref())).copied();
            (!rules.is_empty()).then(|| ServiceRoutes {
                hostname: Arc::clone(hostname),
                of_host_in: None,
                port,
                clients: clients.clone(),
                table: RouteTable::renewed(vec![HostRules::of_any(rules, Precedence::MostSpecific)], before),
            })
        };
        ports.into_iter().filter_map(table).collect()
    }
}

/// What of a route is not in force as it is written.
fn partly(kept: bool, remarks: &[Remark]) -> Option<Refusal> {
    const REASON: &str = "UnsupportedValue";
    if kept {
        return Some(Refusal::new(REASON, "Fall Back: the route is in force as it last was"));
    }
    let dropped = remarks.iter().find(|remark| remark.code == Code::FilterNotHonoured)?;
    Some(Refusal::new(REASON, format!("Dropped Rule: {}: {}", dropped.field, dropped.message)))
}

struct Translation<'a> {
    objects: &'a ObjectSet,
    by_name: HashMap<(&'a str, &'a str), &'a Service>,
    waypoints: &'a L7,
    findings: &'a mut Vec<Finding>,
    /// Hosts that VirtualServices route.
    taken: HashSet<&'a str>,
    attached: BTreeMap<Subject, Attached>,
    listeners: ListenerRoutes,
    statuses: RouteStatuses,
    /// Of the route that is being looked at.
    status: RouteStatus,
    /// The match of a rule that names none.
    everything: RequestMatch,
}

impl<'a> Translation<'a> {
    /// What comes of a route.
    fn route(&mut self, located: &Located<Route>) -> Outcome {
        let (route, said) = (&*located.object, self.findings.len());
        report(located, &route.remarks, self.findings);
        self.status = RouteStatus { generation: route.generation, ..RouteStatus::default() };
        self.status.partly = partly(located.kept, &route.remarks);
        let subjects = self.subjects(located);
        let at_gateways = self.attachments(located, &route.parents, (route.kind, &route.name), &route.hostnames);
        let mut rules = Vec::new();
        // Of a route that is attached to nothing, what is wrong with its backends matters to nobody.
        if !subjects.is_empty() || !at_gateways.is_empty() {
            rules.reserve_exact(route.rules.len());
            for written in &route.rules {
                rules.push(Arc::new(self.rule(written, located)));
            }
        }
        let (status, findings) = (std::mem::take(&mut self.status), self.findings[said..].to_vec());
        Outcome { located: located.clone(), subjects, at_gateways, rules, status, findings }
    }

    /// Adds what came of a route to what came of those before it.
    fn add(&mut self, outcome: &Outcome) {
        let route = &outcome.located.object;
        self.finish(route.kind, &route.name, outcome.status.clone());
        self.count(&outcome.at_gateways);
        for (subject, port) in &outcome.subjects {
            let attached = self.attached.entry(subject.clone()).or_default();
            attached.rules.extend(outcome.rules.iter().map(|rule| (*port, Arc::clone(rule))));
        }
        for Attachment { listener, hosts } in &outcome.at_gateways {
            let of_listener = self.listeners.rules.entry(listener.clone()).or_default();
            of_listener.push((hosts.clone(), outcome.rules.clone()));
        }
    }

    /// Keeps what was found of a route.
    fn finish(&mut self, kind: &'static str, name: &PolicyName, status: RouteStatus) {
        if !status.parents.is_empty() {
            let key = (Arc::clone(&name.namespace), Arc::clone(&name.name));
            self.statuses.insert((kind, key), status);
        }
    }

    /// Counts a route that is attached to those listeners.
    fn count(&mut self, at_gateways: &[Attachment]) {
        let places: BTreeSet<_> = at_gateways.iter().map(|attachment| &attachment.listener).collect();
        for place in places {
            *self.listeners.counts.entry(place.clone()).or_default() += 1;
        }
    }

    /// The listeners that a route is attached to.
    fn attachments<T>(
        &mut self,
        located: &Located<T>,
        parents: &[Parent],
        (kind, name): (&str, &PolicyName),
        hostnames: &[String],
    ) -> Vec<Attachment> {
        let mut found = Vec::new();
        for (index, parent) in parents.iter().enumerate() {
            let Parent::Listeners(reference) = parent else { continue };
            match attach(self.objects, reference, (kind, &name.namespace), hostnames) {
                Ok(None) => {}
                Ok(Some(attachments)) => {
                    self.status.parents.insert(index, ParentStatus::default());
                    found.extend(attachments);
                }
                Err(NotAttached { code, refused, message }) => {
                    if let Some(reason) = refused {
                        self.refuse(index, reason, &message);
                    }
                    self.report(code, located, format!("spec.parentRefs[{index}]"), message);
                }
            }
        }
        found
    }

    /// Notes that a route is not attached to one of its parents.
    fn refuse(&mut self, parent: usize, reason: &'static str, message: &str) {
        self.status.parents.insert(parent, ParentStatus { refused: Some(Refusal::new(reason, message)) });
    }

    fn connection_route(&mut self, located: &Located<ConnectionRoute>) {
        let route = &*located.object;
        self.status = RouteStatus { generation: route.generation, ..RouteStatus::default() };
        self.status.partly = partly(located.kept, &route.remarks);
        self.attach_connections(located);
        let status = std::mem::take(&mut self.status);
        self.finish(route.at.kind, &route.name, status);
    }

    fn attach_connections(&mut self, located: &Located<ConnectionRoute>) {
        let route = &*located.object;
        let at_gateways = self.attachments(located, &route.parents, (route.at.kind, &route.name), &route.hostnames);
        self.count(&at_gateways);
        if at_gateways.is_empty() {
            let none = route.parents.iter().all(|parent| !matches!(parent, Parent::Listeners(_)));
            if none {
                let message = "connections are routed at Gateways alone".to_owned();
                self.report(Code::ParentNotFound, located, "spec.parentRefs".to_owned(), message);
            }
            return;
        }
        let referrer = Referrer { kind: route.at.kind, name: &route.name, parents: &route.parents };
        let mut backends = Vec::with_capacity(route.backends.len());
        for (index, (reference, backend)) in route.backends.iter().enumerate() {
            let field = format!("spec.rules[0].backendRefs[{index}]");
            let target = self.resolve(reference, located, &referrer, &field);
            backends.push(Backend { target, ..backend.clone() });
        }
        for Attachment { listener, hosts } in at_gateways {
            let hosts = if route.hostnames.is_empty() { Vec::new() } else { hosts };
            let route = l7::gateway::ConnectionRoute { at: route.at.clone(), hosts, backends: backends.clone() };
            self.listeners.connections.entry(listener).or_default().push(route);
        }
    }

    /// The Services that it is attached to, with the port.
    fn subjects(&mut self, located: &Located<Route>) -> Vec<(Subject, Option<u16>)> {
        let route = &*located.object;
        let mut subjects = Vec::new();
        for (index, parent) in route.parents.iter().enumerate() {
            let field = format!("spec.parentRefs[{index}]");
            let (parents, port, port_name) = match self.parents(parent) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(why) => {
                    // What no controller of routes is for is left to whoever it is for.
                    if !matches!(parent, Parent::Other(_)) {
                        self.refuse(index, "NoMatchingParent", &why);
                    }
                    self.report(Code::ParentNotFound, located, field, why);
                    continue;
                }
            };
            for service in parents {
                if let Some(found) = self.subject(service, (port, port_name), located, index) {
                    subjects.push(found);
                }
            }
        }
        subjects
    }

    /// The Services that a parent is, and the port that it names; none for a Gateway.
    #[expect(clippy::type_complexity)]
    fn parents<'p>(
        &self,
        parent: &'p Parent,
    ) -> Result<Option<(Vec<&'a Service>, Option<u16>, Option<&'p str>)>, String> {
        let (found, kind, namespace, name, port, port_name) = match parent {
            Parent::Service { namespace, name, port, port_name } => {
                let service = self.service(namespace, name);
                (Vec::from_iter(service), "Service", namespace, name, port, port_name)
            }
            Parent::ServiceEntry { namespace, name, port, port_name } => {
                let all = self.by_name.values().copied();
                let mut hosts: Vec<_> = all.filter(|service| service.is_of_entry(namespace, name)).collect();
                hosts.sort_by_key(|service| &service.hostname);
                (hosts, "ServiceEntry", namespace, name, port, port_name)
            }
            Parent::Listeners(_) => return Ok(None),
            Parent::Other(other) => return Err(format!("{other} is nothing to attach a route to")),
        };
        match found.is_empty() {
            true => Err(format!("there is no {kind} {namespace}/{name}")),
            false => Ok(Some((found, *port, port_name.as_deref()))),
        }
    }

    /// A Service of Kubernetes.
    fn service(&self, namespace: &str, name: &str) -> Option<&'a Service> {
        self.by_name.get(&(namespace, name)).copied().filter(|service| service.entry.is_none())
    }

    fn subject(
        &mut self,
        service: &Service,
        (port, port_name): (Option<u16>, Option<&str>),
        located: &Located<Route>,
        index: usize,
    ) -> Option<(Subject, Option<u16>)> {
        let (route, field) = (&*located.object, format!("spec.parentRefs[{index}]"));
        let declared = service.ports.iter().find(|declared| match (port, port_name) {
            (Some(number), _) => declared.port == number,
            (None, Some(name)) => declared.name.as_deref() == Some(name),
            (None, None) => true,
        });
        let Some(declared) = declared else {
            let message = format!("Service {}/{} declares no such port", service.namespace, service.name);
            self.refuse(index, "NoMatchingParent", &message);
            self.report(Code::ParentNotFound, located, field, message);
            return None;
        };
        self.status.parents.insert(index, ParentStatus::default());
        if self.waypoints.waypoint_of(service).is_none() {
            let message = format!("{} has no waypoint, and nobody else routes requests", service.hostname);
            self.refuse(index, "NoWaypoint", &message);
            self.report(Code::NoWaypoint, located, field.clone(), message);
        }
        if self.taken.contains(&*service.hostname) {
            let message = format!("a VirtualService routes {}: it is in force there", service.hostname);
            self.refuse(index, "RouteConflict", &message);
            self.report(Code::RouteConflict, located, field, message);
            return None;
        }
        let named = (port.is_some() || port_name.is_some()).then_some(declared.port);
        // A route in another namespace is for the clients there (GEP-1426, consumer routes).
        let consumer = route.name.namespace != service.namespace;
        let clients = consumer.then(|| Arc::clone(&route.name.namespace));
        Some(((Arc::clone(&service.hostname), clients), named))
    }

    fn rule(&mut self, written: &RouteRule, located: &Located<Route>) -> Rule {
        let Route { kind, name, parents, .. } = &*located.object;
        let referrer = Referrer { kind, name, parents };
        let mut rule = written.rule.clone();
        let place = format!("spec.rules[{}]", rule.at.index);
        if let Action::Forward(backends) = &mut rule.action {
            for (index, (backend, reference)) in backends.iter_mut().zip(&written.backends).enumerate() {
                let field = format!("{place}.backendRefs[{index}]");
                backend.target = self.resolve(reference, located, &referrer, &field);
            }
        }
        for (reference, percent) in &written.mirrors {
            let target = self.resolve(reference, located, &referrer, &format!("{place}.filters"));
            rule.mirrors.push(Mirror { target, percent: *percent });
        }
        rule
    }

    /// What a reference leads to; what leads nowhere has its share of requests answered with 500.
    fn resolve<T>(
        &mut self,
        reference: &BackendRef,
        located: &Located<T>,
        referrer: &Referrer<'_>,
        field: &str,
    ) -> BackendTarget {
        let Referrer { kind, name: own, .. } = referrer;
        let BackendRef { namespace, name, is_host, port, impossible } = reference;
        let not_found = |why| (Code::BackendNotFound, "BackendNotFound", why);
        let found = match impossible {
            Some(why) => Err((Code::BackendNotFound, "InvalidKind", why.clone())),
            None if *is_host => self.host(name, *port, &own.namespace).map_err(not_found),
            None if !referrer.is_attached_to(namespace, name)
                && !self.objects.may_refer((kind, &own.namespace), namespace, ("Service", name)) =>
            {
                let message = format!("no ReferenceGrant of {namespace} lets {kind} of {} send to it", own.namespace);
                Err((Code::ReferenceNotGranted, "RefNotPermitted", message))
            }
            None => self.backend(namespace, name, *port).map_err(not_found),
        };
        match found {
            Ok((service, port)) => {
                BackendTarget::Service { hostname: Arc::clone(&service.hostname), port: Some(port), subset: None }
            }
            Err((code, reason, message)) => {
                self.status.unresolved.get_or_insert_with(|| Refusal::new(reason, message.as_str()));
                self.report(code, located, field.to_owned(), message.clone());
                BackendTarget::Unresolved { status: 500, reason: message.into() }
            }
        }
    }

    /// What kind `Hostname` of networking.istio.io means: a host, seen from a namespace.
    fn host(&self, name: &str, port: Option<u16>, from: &str) -> Result<(&'a Service, u16), String> {
        let lower = name.to_ascii_lowercase();
        let found = self.by_name.values().copied().find(|service| *service.hostname == *lower);
        let found = found.filter(|service| service.is_visible_to(Some(from)));
        let service = found.ok_or_else(|| format!("there is no host {name}"))?;
        let port = port.ok_or("a host is referred to with a port")?;
        let declared = service.port(port, Protocol::Tcp).is_some();
        declared.then_some((service, port)).ok_or_else(|| format!("{name} declares no TCP port {port}"))
    }

    /// The Service of a reference, and the port there.
    fn backend(&self, namespace: &str, name: &str, port: Option<u16>) -> Result<(&'a Service, u16), String> {
        let service = self.service(namespace, name).ok_or_else(|| format!("there is no Service {namespace}/{name}"))?;
        let port = port.ok_or("a Service is referred to with a port")?;
        let declared = service.port(port, Protocol::Tcp).is_some();
        declared
            .then_some((service, port))
            .ok_or_else(|| format!("Service {namespace}/{name} declares no TCP port {port}"))
    }

    /// Says of which requests an older route, or an earlier rule, is in force (HTTPRouteRule, `matches`).
    fn report_shadows(&mut self) {
        let mut found = BTreeSet::new();
        for ((hostname, _), attached) in &self.attached {
            let mut matches = Matches::default();
            for (port, rule) in &attached.rules {
                let holders = match rule.matches.as_slice() {
                    [] => vec![(0, matches.take(*port, &self.everything, &rule.at))],
                    all => all.iter().map(|matched| matches.take(*port, matched, &rule.at)).enumerate().collect(),
                };
                for (index, holder) in holders {
                    if let Some(holder) = holder {
                        let field = format!("spec.rules[{}].matches[{index}]", rule.at.index);
                        found.insert((&rule.at, field, format!("{holder} has the same match of {hostname}")));
                    }
                }
            }
        }
        for (at, field, message) in found {
            let key = (Arc::clone(&at.namespace), Arc::clone(&at.object));
            let objects = self.objects;
            let routes = if at.kind == "GRPCRoute" { &objects.grpc_routes } else { &objects.http_routes };
            if let Some(located) = routes.get(&key) {
                let finding = Finding::new(Code::RuleShadowed, (*located.origin).clone(), message);
                self.findings.push(finding.at(field));
            }
        }
    }

    fn report<T>(&mut self, code: Code, located: &Located<T>, field: String, message: String) {
        self.findings.push(Finding::new(code, (*located.origin).clone(), message).at(field));
    }
}
