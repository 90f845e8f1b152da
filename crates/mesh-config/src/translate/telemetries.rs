//! What is told of requests, to the model.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_core::telemetry::{Scope, Telemetries};

use super::policies::{by_age, report};
use crate::code::Code;
use crate::config::Options;
use crate::finding::Finding;
use crate::object::ObjectSet;

/// Translates all Telemetries. Of several for a whole namespace the oldest is in force.
pub(super) fn telemetries(objects: &ObjectSet, options: &Options, findings: &mut Vec<Finding>) -> Telemetries {
    let all = by_age(&objects.telemetries, |read| &read.age);
    let mut of_namespace = HashMap::new();
    for located in &all {
        report(located, &located.object.remarks, findings);
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
    Telemetries::new(
        options.root_namespace.as_str().into(),
        all.iter().map(|located| Arc::clone(&located.object.policy)).collect(),
    )
}
