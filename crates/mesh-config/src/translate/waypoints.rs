//! Which Services and workloads are reached by a waypoint.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use mesh_core::l7::{GATEWAY_NAME, L7, Served, Waypoint};
use mesh_core::labels::{Labels, Lookup, USE_WAYPOINT, USE_WAYPOINT_NAMESPACE};
use mesh_core::policy::{ClientTlsRule, HostPattern};
use mesh_core::{Policies, Service, SpiffeId, Workload};

use crate::code::Code;
use crate::config::Options;
use crate::finding::{Finding, ObjectName, Origin};
use crate::gateway_api::{AllowedNamespaces, Gateway, Role};
use crate::kind::Kind;
use crate::object::{Key, Located, ObjectSet};
use crate::texts;

/// The waypoints, and what is reached by them. `anybody_asks` says whether an object names one.
pub(super) fn waypoints(
    (objects, options): (&ObjectSet, &Options),
    anybody_asks: bool,
    workloads: &[Arc<Workload>],
    services: &[Arc<Service>],
    findings: &mut Vec<Finding>,
) -> L7 {
    let mut known = BTreeMap::new();
    let replicas = if objects.gateways.is_empty() { Replicas::new() } else { replicas(workloads) };
    for (key, gateway) in &objects.gateways {
        for remark in &gateway.object.remarks {
            let finding = Finding::new(remark.code, (*gateway.origin).clone(), remark.message.clone());
            findings.push(finding.at(remark.field.clone()));
        }
        if let Role::Waypoint { allowed } = &gateway.object.role {
            let waypoint = Arc::new(waypoint(gateway, options, &replicas, findings));
            known.insert(key.clone(), (waypoint, allowed));
        }
    }
    if objects.gateways.is_empty() && !anybody_asks {
        return L7::default();
    }
    let mut chosen = Choice { objects, known: &known, findings, reported: HashSet::new() };
    let by_service: HashMap<_, _> = services
        .iter()
        .filter_map(|service| {
            let waypoint = chosen.of_service(service)?;
            waypoint.serves.takes_services().then(|| (Arc::clone(&service.hostname), waypoint))
        })
        .collect();
    let by_workload: HashMap<_, _> = workloads
        .iter()
        .filter_map(|workload| {
            let waypoint = chosen.of_workload(workload)?;
            waypoint.serves.takes_workloads().then(|| (workload.uid.clone(), waypoint))
        })
        .collect();
    let all = known.into_values().map(|(waypoint, _)| waypoint).collect();
    L7::default().with_waypoints(all, by_service, by_workload)
}

/// Says which DestinationRules ask for what only a waypoint does, of a Service that has none.
pub(super) fn report_missing(
    objects: &ObjectSet,
    (services, workloads): (&[Arc<Service>], &[Arc<Workload>]),
    policies: &Policies,
    l7: &L7,
    findings: &mut Vec<Finding>,
) {
    let without: HashSet<&str> =
        services.iter().filter(|service| l7.waypoint_of(service).is_none()).map(|service| &*service.hostname).collect();
    for service in services.iter().filter(|service| without.contains(&*service.hostname)) {
        report_names(service, objects, findings);
    }
    for rule in policies.client_tls() {
        let key = (Arc::clone(&rule.name.namespace), Arc::clone(&rule.name.name));
        let located = objects.destination_rules.get(&key);
        let Some(located) = located.filter(|located| located.object.traffic.asks_for_something()) else {
            continue;
        };
        if let Some(waypoint) = past(rule, services, workloads, l7) {
            let message = format!(
                "clients send by waypoint {waypoint}, which it does not select: what it says of them is not in force"
            );
            let finding = Finding::new(Code::WithoutEffect, (*located.origin).clone(), message);
            findings.push(finding.at("spec.workloadSelector"));
        }
        // Of a rule for many hosts the first that has none.
        let host = match &rule.host {
            HostPattern::Exact(host) => without.get(&**host).copied(),
            many @ HostPattern::Suffix(_) => without.iter().copied().filter(|host| many.matches(host)).min(),
        };
        if let Some(host) = host {
            if located.object.traffic.begins_tls() {
                let message =
                    format!("{host} has no waypoint, and nodes begin no TLS: its clients in the mesh are refused");
                let finding = Finding::new(Code::TlsNotOriginated, (*located.origin).clone(), message);
                findings.push(finding.at("spec.trafficPolicy"));
            } else {
                let message =
                    format!("{host} has no waypoint: only what the rule says of TLS and of localities is in force");
                findings.push(Finding::new(Code::NoWaypoint, (*located.origin).clone(), message).at("spec.host"));
            }
        }
    }
}

/// The waypoint that sends to the rule's host in place of the clients that the rule selects, and is none of those.
fn past<'a>(
    rule: &ClientTlsRule,
    services: &[Arc<Service>],
    workloads: &[Arc<Workload>],
    l7: &'a L7,
) -> Option<&'a Arc<Waypoint>> {
    let clients = rule.clients.as_ref()?;
    let waypoint = services.iter().filter(|service| rule.host.matches(&service.hostname));
    let waypoint = waypoint.into_iter().find_map(|service| l7.waypoint_of(service))?;
    let is_its = |workload: &&Arc<Workload>| {
        workload.namespace == waypoint.namespace && workload.labels.get(GATEWAY_NAME) == Some(&*waypoint.name)
    };
    let selects =
        |workload: &Arc<Workload>| workload.namespace == rule.name.namespace && clients.selects(&workload.labels);
    (!workloads.iter().filter(is_its).any(selects)).then_some(waypoint)
}

/// Nodes ask no DNS: a host that is found so needs a waypoint.
fn report_names(service: &Service, objects: &ObjectSet, findings: &mut Vec<Finding>) {
    let Some(entry) = service.entry.as_ref().filter(|entry| !entry.names.is_empty() && !service.vips.is_empty()) else {
        return;
    };
    if let Some(located) = objects.service_entries.get(&(Arc::clone(&service.namespace), Arc::clone(&entry.object))) {
        let (code, what) = match service.is_headless() {
            true => (Code::NotCaptured, "it has no waypoint, and no addresses of its own"),
            false => (Code::NoWaypoint, "connections to it are refused"),
        };
        let message = format!("{} is found by DNS, which nodes do not ask: {what}", service.hostname);
        findings.push(Finding::new(code, (*located.origin).clone(), message).at("spec.resolution"));
    }
}

/// Who the pods of Gateways are, by the Gateways' namespaces and names.
type Replicas<'a> = HashMap<(&'a str, &'a str), Vec<SpiffeId>>;

fn replicas(workloads: &[Arc<Workload>]) -> Replicas<'_> {
    let mut replicas = Replicas::new();
    for workload in workloads {
        if let Some(gateway) = workload.labels.get(GATEWAY_NAME) {
            let identities = replicas.entry((&*workload.namespace, gateway)).or_default();
            if !identities.contains(&workload.identity) {
                identities.push(workload.identity.clone());
            }
        }
    }
    replicas
}

fn waypoint(
    located: &Located<Gateway>,
    options: &Options,
    replicas: &Replicas<'_>,
    findings: &mut Vec<Finding>,
) -> Waypoint {
    let Gateway { name, class, waypoint_for, .. } = &*located.object;
    let serves = match waypoint_for.as_deref() {
        None => Served::Services,
        Some(text) => Served::parse(text).unwrap_or_else(|| {
            let message = format!("{text:?} is none of service, workload, all and none; service is taken");
            let finding = Finding::new(Code::BadWaypointLabel, (*located.origin).clone(), message);
            findings.push(finding.at("metadata.labels[istio.io/waypoint-for]"));
            Served::Services
        }),
    };
    Waypoint {
        namespace: Arc::clone(&name.namespace),
        name: Arc::clone(&name.name),
        class: Arc::clone(class),
        hostname: format!("{}.{}.svc.{}", name.name, name.namespace, options.cluster_domain).into(),
        identities: replicas.get(&(&*name.namespace, &*name.name)).cloned().unwrap_or_default(),
        serves,
    }
}

/// The waypoints by namespace and name, with whom they take.
type Known<'a> = BTreeMap<Key, (Arc<Waypoint>, &'a AllowedNamespaces)>;

struct Choice<'a> {
    objects: &'a ObjectSet,
    known: &'a Known<'a>,
    findings: &'a mut Vec<Finding>,
    /// A namespace's label is looked at for everything in it, and told of once.
    reported: HashSet<(Code, Option<ObjectName>)>,
}

impl Choice<'_> {
    fn of_service(&mut self, service: &Service) -> Option<Arc<Waypoint>> {
        if let Some(entry) = &service.entry {
            let located =
                self.objects.service_entries.get(&(Arc::clone(&service.namespace), Arc::clone(&entry.object)))?;
            return self.chosen(&service.namespace, &located.object.labels, &|| (*located.origin).clone());
        }
        let key = (Arc::clone(&service.namespace), Arc::clone(&service.name));
        let located = self.objects.services.get(&key)?;
        self.chosen(&service.namespace, &located.object.labels, &|| located.origin_of(Kind::Service, &key))
    }

    fn of_workload(&mut self, workload: &Workload) -> Option<Arc<Waypoint>> {
        let key = (Arc::clone(&workload.namespace), Arc::clone(&workload.name));
        let located = self.objects.pods.get(&key)?;
        self.chosen(&workload.namespace, &located.object.labels, &|| located.origin_of(Kind::Pod, &key))
    }

    /// By the object's own labels, else by its namespace's.
    fn chosen(&mut self, namespace: &str, own: &impl Lookup, origin: &dyn Fn() -> Origin) -> Option<Arc<Waypoint>> {
        let of_namespace = self.objects.namespaces.get(namespace);
        let (key, by) = match named(namespace, Some(own)) {
            Some(key) => (key, None),
            None => {
                let located = of_namespace?;
                (named(namespace, located.object.metadata.labels.as_ref())?, Some(located))
            }
        };
        let origin = || by.map_or_else(origin, |namespace| (*namespace.origin).clone());
        if *key.1 == *"none" {
            return None;
        }
        let Some((waypoint, allowed)) = self.known.get(&key) else {
            let message = format!("there is no waypoint {}/{}: traffic goes without one", key.0, key.1);
            self.report(Code::NoSuchWaypoint, origin(), message);
            return None;
        };
        let labels = of_namespace.and_then(|located| located.object.metadata.labels.as_ref());
        if !admits(allowed, &waypoint.namespace, namespace, labels) {
            let message = format!("waypoint {waypoint} takes nothing of namespace {namespace} (allowedRoutes)");
            self.report(Code::WaypointNotAllowed, origin(), message);
            return None;
        }
        Some(Arc::clone(waypoint))
    }

    fn report(&mut self, code: Code, origin: Origin, message: String) {
        if self.reported.insert((code, origin.object.clone())) {
            let finding = Finding::new(code, origin, message);
            self.findings.push(finding.at(format!("metadata.labels[{USE_WAYPOINT}]")));
        }
    }
}

/// The waypoint that labels name.
fn named(namespace: &str, labels: Option<&impl Lookup>) -> Option<Key> {
    let labels = labels?;
    let name = labels.value(USE_WAYPOINT)?;
    let at = labels.value(USE_WAYPOINT_NAMESPACE).unwrap_or(namespace);
    Some((texts::text(at), texts::text(name)))
}

/// Whether a Gateway of the namespace `own` admits what is in another.
pub(super) fn admits(allowed: &AllowedNamespaces, own: &str, namespace: &str, labels: Option<&Labels>) -> bool {
    if *own == *namespace && !matches!(allowed, AllowedNamespaces::Selected(_)) {
        return *allowed != AllowedNamespaces::Nobody;
    }
    match allowed {
        AllowedNamespaces::All => true,
        AllowedNamespaces::Same | AllowedNamespaces::Nobody => false,
        AllowedNamespaces::Selected(selector) => selector.selects(labels),
    }
}
