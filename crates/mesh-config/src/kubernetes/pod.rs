//! A Pod.

use std::ops::Deref;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod as KubePod, PodStatus};
use mesh_core::l7::topology::TopologyPart;
use mesh_core::labels::{self, Labels};
use mesh_core::{Few, LabelSet, WorkloadUid};

use super::Address;
use crate::istio::{PROXY_CONFIG, ProxyConfig};
use crate::probes::ProbePorts;
use crate::texts;

/// Istio's annotation, `false` where what the Pod asks of DNS is left to its resolver.
pub const DNS_CAPTURE: &str = "ambient.istio.io/dns-capture";

/// What matters of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.uid`, as it is written.
    pub uid: WorkloadUid,
    /// The node that runs it; empty for none.
    pub node: Arc<str>,
    /// Its addresses.
    pub addresses: Few<Address>,
    /// Whether these are `status.podIPs`, and not `status.podIP`.
    pub lists_addresses: bool,
    /// Whether it is on the host's network.
    pub host_network: bool,
    /// Whether it has ended: its address may belong to another by now.
    pub ended: bool,
    /// Whether it is ready to serve.
    pub ready: bool,
    /// What it has of its template, which other Pods share; read as if it were its own.
    pub template: Arc<PodTemplate>,
}

/// As many of them are held as there are Pods.
const _: () = assert!(size_of::<Pod>() <= 80);

/// What a controller gives all of its Pods.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodTemplate {
    /// The labels.
    pub labels: LabelSet,
    /// The service account.
    pub account: Arc<str>,
    /// The name of the Deployment, StatefulSet and so on; the Pod's own without an owner.
    pub workload_name: Arc<str>,
    /// Where kubelet knocks; boxed, since few Pods have more than a port or two.
    pub probes: Option<Box<ProbePorts>>,
    /// What its annotation says of whether it is told of the mesh's hosts.
    pub dns_capture: Option<Arc<str>>,
    /// How its proxy is set up, where its annotation says something of that; or why that cannot be read.
    pub proxy_config: Option<Box<Result<TopologyPart, String>>>,
}

impl Deref for Pod {
    type Target = PodTemplate;

    fn deref(&self) -> &PodTemplate {
        &self.template
    }
}

impl Pod {
    pub(crate) fn of(pod: &KubePod, name: &str) -> Self {
        let (spec, nothing) = (pod.spec.as_ref(), PodStatus::default());
        let status = pod.status.as_ref().unwrap_or(&nothing);
        let listed: Vec<&str> = status.pod_ips.iter().flatten().map(|entry| entry.ip.as_str()).collect();
        let single = status.pod_ip.as_deref().filter(|ip| !ip.is_empty());
        let lists_addresses = !listed.is_empty();
        let given = if lists_addresses { listed } else { single.into_iter().collect() };
        let (no_labels, own_labels) = (Labels::new(), pod.metadata.labels.as_ref());
        let account = spec.and_then(|spec| spec.service_account_name.as_deref()).filter(|name| !name.is_empty());
        let probes = spec.map(ProbePorts::of).filter(|probes| *probes != ProbePorts::default());
        let template = texts::pod_template(PodTemplate {
            labels: texts::labels(own_labels),
            account: texts::text(account.unwrap_or("default")),
            workload_name: texts::text(labels::workload_name(controller(pod), own_labels.unwrap_or(&no_labels), name)),
            probes: probes.map(Box::new),
            dns_capture: pod
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(DNS_CAPTURE))
                .map(|it| texts::text(it)),
            proxy_config: proxy_config(pod).map(Box::new),
        });
        Self {
            uid: WorkloadUid::new(pod.metadata.uid.as_deref().unwrap_or_default()),
            node: texts::text(spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()),
            addresses: given.into_iter().map(Address::read).collect(),
            lists_addresses,
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
            ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            ready: is_ready(status),
            template,
        }
    }

    /// The field that has the address of that index.
    pub(crate) fn address_field(&self, index: usize) -> String {
        if self.lists_addresses { format!("status.podIPs[{index}].ip") } else { "status.podIP".to_owned() }
    }
}

/// The kind and name of the owner that manages the Pod.
fn controller(pod: &KubePod) -> Option<(&str, &str)> {
    let owners = pod.metadata.owner_references.as_deref()?;
    let controller = owners.iter().find(|owner| owner.controller == Some(true));
    let owner = controller.or(owners.first())?;
    (!owner.name.is_empty()).then_some((owner.kind.as_str(), owner.name.as_str()))
}

/// What its annotation says of what stands before a gateway; all else in it is a sidecar's business, and here there is none.
fn proxy_config(pod: &KubePod) -> Option<Result<TopologyPart, String>> {
    let text = pod.metadata.annotations.as_ref()?.get(PROXY_CONFIG)?;
    match ProxyConfig::of_text(text, PROXY_CONFIG) {
        Ok(read) => Some(read.topology).filter(|said| *said != TopologyPart::default()).map(Ok),
        Err(flaw) => Some(Err(format!("{}: {}", flaw.field, flaw.message))),
    }
}

/// By the Ready condition. A hand-written Pod without conditions is ready unless its phase says otherwise.
fn is_ready(status: &PodStatus) -> bool {
    match &status.conditions {
        Some(conditions) if !conditions.is_empty() => {
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        }
        _ => matches!(status.phase.as_deref(), None | Some("Running")),
    }
}
