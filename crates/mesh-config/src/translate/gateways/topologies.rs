//! What stands before gateways, by all who say something of it.

use mesh_core::l7::Topologies;
use mesh_core::l7::topology::TopologyPart;

use crate::code::Code;
use crate::finding::Finding;
use crate::istio::PROXY_CONFIG;
use crate::object::ObjectSet;

/// What the mesh configuration, Gateways and Pods say.
pub(in crate::translate) fn topologies(objects: &ObjectSet, findings: &mut Vec<Finding>) -> Topologies {
    let everywhere = objects.mesh_configs.values().next().map(|located| located.object.topology).unwrap_or_default();
    let mut all = Topologies { everywhere, ..Topologies::default() };
    let gateways = objects.gateways.iter().map(|(key, located)| (key, located.object.topology));
    for ((namespace, name), said) in gateways.filter(|(_, said)| *said != TopologyPart::default()) {
        all.gateways.insert(format!("{namespace}/{name}"), said);
    }
    for ((namespace, name), located) in &objects.pods {
        match located.object.proxy_config.as_deref() {
            None => {}
            Some(Ok(said)) => drop(all.pods.insert(format!("{namespace}/{name}"), *said)),
            Some(Err(why)) => {
                let finding = Finding::new(Code::BadPolicyValue, (*located.origin).clone(), why.clone());
                findings.push(finding.at(format!("metadata.annotations[{PROXY_CONFIG}]")));
            }
        }
    }
    all
}
