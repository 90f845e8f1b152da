//! What stands before gateways, by all who say something of it.

use std::collections::BTreeSet;

use mesh_core::l7::Topologies;
use mesh_core::l7::topology::TopologyPart;

use crate::code::Code;
use crate::finding::Finding;
use crate::istio::PROXY_CONFIG;
use crate::kind::Kind;
use crate::object::{Key, ObjectSet};

/// What the mesh configuration, Gateways and Pods say; of the Pods, those that say something.
pub(in crate::translate) fn topologies(
    objects: &ObjectSet,
    pods: &BTreeSet<Key>,
    findings: &mut Vec<Finding>,
) -> Topologies {
    let everywhere = objects.mesh_configs.values().next().map(|located| located.object.topology).unwrap_or_default();
    let mut all = Topologies { everywhere, ..Topologies::default() };
    let gateways = objects.gateways.iter().map(|(key, located)| (key, located.object.topology));
    for ((namespace, name), said) in gateways.filter(|(_, said)| *said != TopologyPart::default()) {
        all.gateways.insert(format!("{namespace}/{name}"), said);
    }
    for (key @ (namespace, name), located) in pods.iter().filter_map(|key| Some((key, objects.pods.get(key)?))) {
        match located.object.proxy_config.as_deref() {
            None => {}
            Some(Ok(said)) => drop(all.pods.insert(format!("{namespace}/{name}"), *said)),
            Some(Err(why)) => {
                let finding = Finding::new(Code::BadPolicyValue, located.origin_of(Kind::Pod, key), why.clone());
                findings.push(finding.at(format!("metadata.annotations[{PROXY_CONFIG}]")));
            }
        }
    }
    all
}
