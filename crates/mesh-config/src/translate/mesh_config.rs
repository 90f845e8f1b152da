//! The mesh configuration to the model.

use mesh_core::l7::traffic::Defaults;
use mesh_core::{Providers, Snapshot};

use super::policies::report;
use crate::code::Code;
use crate::config::Options;
use crate::finding::Finding;
use crate::istio::MeshConfig;
use crate::object::{Located, ObjectSet};

/// The providers that it names. Those whose Service is absent are there all the same: what asks them gets no answer.
pub(super) fn providers(
    objects: &ObjectSet,
    options: &Options,
    snapshot: &Snapshot,
    findings: &mut Vec<Finding>,
) -> Providers {
    let Some(located) = objects.mesh_configs.values().next() else {
        return Providers::default();
    };
    report(located, &located.object.remarks, findings);
    report_other_names(located, options, findings);
    for (name, provider) in &located.object.providers {
        let address = provider.address();
        if address.service(snapshot).is_none() {
            let message = format!("provider {name:?}: no Service {} has port {}", address.host, address.port);
            let finding = Finding::new(Code::ProviderNotFound, (*located.origin).clone(), message);
            findings.push(finding.at("data.mesh.extensionProviders"));
        }
    }
    located.object.providers.iter().cloned().collect()
}

/// What it asks for where nothing nearer does.
pub(super) fn defaults(objects: &ObjectSet) -> Defaults {
    objects.mesh_configs.values().next().map(|located| located.object.defaults.clone()).unwrap_or_default()
}

/// Programs know the trust domain and the root namespace before they read this, by their flags.
fn report_other_names(located: &Located<MeshConfig>, options: &Options, findings: &mut Vec<Finding>) {
    let trust_domain = options.trust_domain.to_string();
    let pairs = [
        ("trustDomain", located.object.trust_domain.as_deref(), &*trust_domain),
        ("rootNamespace", located.object.root_namespace.as_deref(), &*options.root_namespace),
    ];
    for (field, named, in_force) in pairs {
        if let Some(named) = named.filter(|named| *named != in_force) {
            let message = format!("it says {named:?}, and {in_force:?} is in force by the programs' flags");
            let finding = Finding::new(Code::FieldNotHonoured, (*located.origin).clone(), message);
            findings.push(finding.at(format!("data.mesh.{field}")));
        }
    }
}
