//! What is told of requests, to the model.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_core::Provider;
use mesh_core::policy::PolicyName;
use mesh_core::telemetry::{Outputs, STANDARD_OUTPUT, Scope, Telemetries, TelemetryPolicy};

use super::policies::{by_age, report};
use crate::code::Code;
use crate::config::Options;
use crate::finding::Finding;
use crate::istio::{MeshConfig, Telemetry};
use crate::object::{Key, Located, ObjectSet};

/// Translates all Telemetries. Of several for a whole namespace the oldest is in force.
pub(super) fn telemetries(objects: &ObjectSet, options: &Options, findings: &mut Vec<Finding>) -> Telemetries {
    let all = by_age(&objects.telemetries, |read| &read.age);
    let mut of_namespace = HashMap::new();
    for located in &all {
        report(located, &located.object.remarks, findings);
        report_unknown(located, objects, findings);
        let policy = &located.object.policy;
        if policy.scope != Scope::Namespace {
            continue;
        }
        let older = *of_namespace.entry(policy.name.namespace.clone()).or_insert(&policy.name);
        if *older != policy.name {
            let message = format!("{older} is older and about the same: it is in force, and this one is not");
            findings.push(Finding::new(Code::PolicyConflict, (*located.origin).clone(), message));
        }
    }
    let of_mesh = objects.mesh_configs.iter().next().and_then(|located| of_mesh_config(located, objects, findings));
    let in_force = all.iter().map(|located| without_unknown(&located.object.policy, objects));
    let in_force: Vec<_> = of_mesh.into_iter().chain(in_force).collect();
    let outputs = outputs(objects).cloned().unwrap_or_default();
    if in_force.is_empty() && outputs.is_empty() {
        return Telemetries::default();
    }
    Telemetries::new(options.root_namespace.as_str().into(), in_force).with_outputs(outputs)
}

/// What the mesh configuration says; none where it says nothing.
fn of_mesh_config(
    ((namespace, name), located): (&Key, &Located<MeshConfig>),
    objects: &ObjectSet,
    findings: &mut Vec<Finding>,
) -> Option<Arc<TelemetryPolicy>> {
    let MeshConfig { logging, tracing, .. } = &*located.object;
    if logging.is_empty() && tracing.is_empty() {
        return None;
    }
    let logged = logging.iter().flat_map(|logging| &logging.providers).filter(|name| !is_output(objects, name));
    for name in logged.chain(tracing.iter().filter_map(|tracing| tracing.provider.as_ref())) {
        if !is_collector(objects, name) {
            let message = format!("extensionProviders has no collector {name:?}: nothing goes there");
            let finding = Finding::new(Code::ProviderNotFound, (*located.origin).clone(), message);
            findings.push(finding.at("data.mesh.defaultProviders"));
        }
    }
    let name = PolicyName { namespace: Arc::clone(namespace), name: Arc::clone(name) };
    let (logging, tracing) = (logging.clone(), tracing.clone());
    let policy = TelemetryPolicy { name: Arc::new(name), scope: Scope::Mesh, logging, tracing, metrics: Vec::new() };
    Some(without_unknown(&Arc::new(policy), objects))
}

/// Whether the mesh configuration has a collector of that name.
fn is_collector(objects: &ObjectSet, name: &str) -> bool {
    let mut providers = objects.mesh_configs.values().flat_map(|config| &config.object.providers);
    providers.any(|(known, provider)| **known == *name && matches!(provider, Provider::Collector(_)))
}

/// The providers of logs that are standard output.
fn outputs(objects: &ObjectSet) -> Option<&Outputs> {
    objects.mesh_configs.values().next().map(|located| &located.object.outputs)
}

/// Whether lines for a provider of that name go to standard output.
fn is_output(objects: &ObjectSet, name: &str) -> bool {
    name == STANDARD_OUTPUT || outputs(objects).is_some_and(|outputs| outputs.contains_key(name))
}

/// Without providers that are not there: an entry about nobody else says nothing, so that lines go on as they went.
fn without_unknown(policy: &Arc<TelemetryPolicy>, objects: &ObjectSet) -> Arc<TelemetryPolicy> {
    let is_known = |name: &Arc<str>| is_output(objects, name) || is_collector(objects, name);
    if policy.logging.iter().flat_map(|logging| &logging.providers).all(is_known) {
        return Arc::clone(policy);
    }
    let mut known = TelemetryPolicy::clone(policy);
    known.logging.retain_mut(|logging| {
        let named = !logging.providers.is_empty();
        logging.providers.retain(is_known);
        !(named && logging.providers.is_empty())
    });
    Arc::new(known)
}

/// Says which providers a Telemetry names that the mesh configuration does not have: nothing goes there.
fn report_unknown(located: &Located<Telemetry>, objects: &ObjectSet, findings: &mut Vec<Finding>) {
    let mut report = |name: &Arc<str>, field: String, what: &str| {
        if !is_collector(objects, name) {
            let message = format!("the mesh configuration has no collector {name:?}: {what}");
            findings.push(Finding::new(Code::ProviderNotFound, (*located.origin).clone(), message).at(field));
        }
    };
    let policy = &located.object.policy;
    for (index, logging) in policy.logging.iter().enumerate() {
        for name in logging.providers.iter().filter(|name| !is_output(objects, name)) {
            report(name, format!("spec.accessLogging[{index}].providers"), "no line goes there");
        }
    }
    for (index, name) in
        policy.tracing.iter().enumerate().filter_map(|(index, it)| Some((index, it.provider.as_ref()?)))
    {
        let what = "spans go where the programs' flag --otlp-endpoint says";
        report(name, format!("spec.tracing[{index}].providers"), what);
    }
}
