//! Conflicts between routes and gateways, and settings without effect: weights, listeners of several Gateways, rules that get no request.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::Workload;
use mesh_core::l7::gateway::{GatewayPods, Listener, Serves};
use mesh_core::l7::{Action, Backend, Gateway, HostRules, Precedence, Rule, RuleRef};
use mesh_core::policy::HostPattern;

use super::policies::by_age;
use super::shadows::{Matches, shadowed};
use crate::code::Code;
use crate::finding::{Finding, Origin};
use crate::object::ObjectSet;

/// Percent, which Istio's weights are meant to be.
const WHOLE: u64 = 100;

/// Weights of VirtualServices that are no percentages: requests are split in proportion, which need not be what was meant.
pub(super) fn report_weights(objects: &ObjectSet, findings: &mut Vec<Finding>) {
    for located in objects.virtual_services.values() {
        let read = &*located.object;
        let http = read.http.iter().filter_map(|http| match &http.rule.action {
            Action::Forward(backends) => Some((format!("spec.http[{}].route", http.rule.at.index), &**backends)),
            Action::Redirect(_) | Action::Respond(_) => None,
        });
        let connections = read.connections.iter().map(|rule| {
            let list = rule.at.name.as_deref().unwrap_or_default();
            (format!("spec.{list}[{}].route", rule.at.index), &*rule.backends)
        });
        for (field, backends) in http.chain(connections) {
            if let Some(sum) = odd_sum(backends) {
                let message = format!("the weights add up to {sum}, and are taken in proportion");
                let finding = Finding::new(Code::WeightsNotWhole, (*located.origin).clone(), message);
                findings.push(finding.at(field));
            }
        }
    }
}

/// What the weights of several destinations come to, where that is not 100.
fn odd_sum(backends: &[Backend]) -> Option<u64> {
    let sum = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    (backends.len() > 1 && sum != WHOLE).then_some(sum)
}

/// A host, and the listener that has it.
type Taken<'a> = (&'a HostPattern, &'a Arc<Listener>);

/// Istio's Gateways that ask for one port and host at the same pods, and those that no pod is for.
pub(super) fn report_listeners(
    objects: &ObjectSet,
    gateways: &[Arc<Gateway>],
    workloads: &[Arc<Workload>],
    findings: &mut Vec<Finding>,
) {
    // Who has a port and a host, by the gateway's pods.
    let mut taken: BTreeMap<(String, u16), Vec<Taken<'_>>> = BTreeMap::new();
    for located in by_age(&objects.istio_gateways, |gateway| &gateway.age) {
        let read = &*located.object;
        let named = |gateway: &&Arc<Gateway>| {
            gateway.name == read.name.name
                && gateway.namespace == read.name.namespace
                && matches!(gateway.pods, GatewayPods::Selected(_))
        };
        let Some(gateway) = gateways.iter().find(named) else { continue };
        let selector = read.selector.as_ref();
        if !workloads.iter().any(|workload| selector.is_none_or(|own| own.selects(&workload.labels))) {
            let message = "no pod has the labels that it selects: nobody listens";
            findings
                .push(Finding::new(Code::GatewayWithoutPods, (*located.origin).clone(), message).at("spec.selector"));
        }
        for (server, listener) in read.servers.iter().zip(&gateway.listeners) {
            let others = taken.entry((format!("{selector:?}"), listener.port)).or_default();
            let holder = listener.hosts.iter().find_map(|host| {
                others
                    .iter()
                    .find(|(known, _)| *known == host)
                    .map(|(host, other)| (host.to_string(), Arc::clone(other)))
            });
            if let Some((host, other)) = holder {
                let message = format!(
                    "server {} of Gateway {} has port {} for {host} already",
                    other.name, other.gateway, listener.port
                );
                let finding = Finding::new(Code::ListenerConflict, (*located.origin).clone(), message);
                findings.push(finding.at(format!("spec.servers[{}].hosts", server.index)));
            }
            others.extend(listener.hosts.iter().map(|host| (host, listener)));
        }
    }
}

/// Rules of gateways that get no request, for those before them have all.
pub(super) fn report_shadows(objects: &ObjectSet, gateways: &[Arc<Gateway>], findings: &mut Vec<Finding>) {
    let mut found = Vec::new();
    for listener in gateways.iter().flat_map(|gateway| &gateway.listeners) {
        let Serves::Requests { table, .. } = &listener.serves else { continue };
        for host in table.hosts() {
            let named: Vec<String> = host.hosts.iter().map(ToString::to_string).collect();
            let here = || format!(" at {} {} for {}", listener.gateway, listener.name, named.join(", "));
            match host.precedence {
                Precedence::AsWritten => found.extend(shadowed(host.rules.iter()).into_iter().map(|(at, holder)| {
                    (at, String::new(), format!("no request gets here{}: {holder} has them all", here()))
                })),
                Precedence::MostSpecific => found.extend(same_matches(host).map(|(at, index, holder)| {
                    (at, format!(".matches[{index}]"), format!("{holder} has the same match{}", here()))
                })),
            }
        }
    }
    for (at, field, message) in found {
        let Some((origin, list)) = origin(objects, at) else { continue };
        let field = format!("{list}[{}]{field}", at.index);
        let finding = Finding::new(Code::RuleShadowed, origin.clone(), message).at(field);
        // A rule may be in force at several places, and one word on it is enough.
        let told = |known: &Finding| {
            known.code == finding.code && known.origin == finding.origin && known.field == finding.field
        };
        if !findings.iter().any(told) {
            findings.push(finding);
        }
    }
}

/// Matches of one host that another rule has: which rule, the match's place, and who has it.
fn same_matches(host: &HostRules) -> impl Iterator<Item = (&RuleRef, usize, &RuleRef)> {
    let mut matches = Matches::default();
    let all = host.rules.iter().flat_map(move |rule: &Arc<Rule>| {
        let holders: Vec<_> =
            rule.matches.iter().map(|matched| matches.take(None, matched, &rule.at)).enumerate().collect();
        holders.into_iter().filter_map(|(index, holder)| Some((&rule.at, index, holder?)))
    });
    all.collect::<Vec<_>>().into_iter()
}

/// Where a rule is written, and in which list.
fn origin<'a>(objects: &'a ObjectSet, at: &RuleRef) -> Option<(&'a Origin, &'static str)> {
    let key = (Arc::clone(&at.namespace), Arc::clone(&at.object));
    match at.kind {
        "VirtualService" => objects.virtual_services.get(&key).map(|located| (&*located.origin, "spec.http")),
        "HTTPRoute" => objects.http_routes.get(&key).map(|located| (&*located.origin, "spec.rules")),
        "GRPCRoute" => objects.grpc_routes.get(&key).map(|located| (&*located.origin, "spec.rules")),
        _ => None,
    }
}
