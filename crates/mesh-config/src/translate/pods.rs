//! Pods to workloads.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec, PodStatus};
use mesh_core::labels::{self, Labels, Wish};
use mesh_core::{Enrolment, OutsideReason, SpiffeId, Workload, WorkloadUid};

use super::label_interner::LabelInterner;
use super::unicast;
use crate::code::Code;
use crate::config::Options;
use crate::finding::{Finding, Origin};
use crate::object::{Located, ObjectSet, TrimmedPod};
use crate::probes::ProbePorts;

/// The workloads, and which Pod is which.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    pub(super) all: Vec<Arc<Workload>>,
    by_name: HashMap<(Arc<str>, Arc<str>), usize>,
    by_address: HashMap<IpAddr, usize>,
}

impl Workloads {
    /// The Pod of that name that has `address`, else the one that has it.
    pub(super) fn find(&self, pod: Option<(&str, &str)>, address: IpAddr) -> Option<&Arc<Workload>> {
        let named = pod.and_then(|(namespace, name)| {
            let index = self.by_name.get(&(namespace.into(), name.into()))?;
            let workload = self.all.get(*index)?;
            workload.addresses.contains(&address).then_some(workload)
        });
        named.or_else(|| self.all.get(*self.by_address.get(&address)?))
    }
}

/// Translates all Pods, in the order of namespace and name.
pub(super) fn workloads(objects: &ObjectSet, options: &Options, findings: &mut Vec<Finding>) -> Workloads {
    let mut translation = Translation {
        objects,
        options,
        findings,
        workloads: Workloads::default(),
        uids: HashMap::new(),
        reported: HashSet::new(),
        labels: LabelInterner::default(),
    };
    for namespace in objects.namespaces.values() {
        let labels = namespace.object.metadata.labels.as_ref();
        check_labels(&namespace.origin, labels, translation.findings);
    }
    for ((namespace, name), pod) in &objects.pods {
        if let Some(workload) = translation.workload(namespace, name, pod) {
            translation.add(workload);
        }
    }
    translation.workloads
}

struct Translation<'a> {
    objects: &'a ObjectSet,
    options: &'a Options,
    findings: &'a mut Vec<Finding>,
    workloads: Workloads,
    uids: HashMap<WorkloadUid, usize>,
    /// What is absent is said once, not for every Pod.
    reported: HashSet<(Code, String)>,
    labels: LabelInterner,
}

impl Translation<'_> {
    fn workload(&mut self, namespace: &str, name: &str, located: &Located<TrimmedPod>) -> Option<Workload> {
        let (pod, origin) = (&located.object.pod, &*located.origin);
        let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
        let spec = pod.spec.as_ref().unwrap_or(&no_spec);
        let status = pod.status.as_ref().unwrap_or(&no_status);
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return None; // Its address may belong to another Pod by now.
        }
        let uid = self.uid(pod, origin)?;
        let node = spec.node_name.as_deref().filter(|node| !node.is_empty());
        let Some(node) = node else {
            let finding = Finding::new(Code::PodNotPlaced, origin.clone(), "the Pod has no node");
            self.findings.push(finding.at("spec.nodeName"));
            return None;
        };
        self.check_node(node, origin);
        let identity = self.identity(namespace, spec, origin)?;
        let pod_labels = pod.metadata.labels.as_ref();
        let namespace_labels = self.namespace_labels(namespace, origin);
        check_labels(origin, pod_labels, self.findings);
        let nothing = Labels::new();
        let pod_labels = pod_labels.unwrap_or(&nothing);
        let host_network = spec.host_network.unwrap_or(false);
        let enrolment = labels::enrolment(&namespace_labels, pod_labels, host_network);
        self.check_host_network(enrolment, pod_labels, origin);
        let addresses = self.addresses(status, host_network, origin);
        let owner = controller(pod);
        let workload_name = labels::workload_name(owner, pod_labels, name);
        let service = labels::canonical_service(pod_labels, workload_name);
        let revision = labels::canonical_revision(pod_labels);
        let label = |key: &str| pod_labels.get(key).map(String::as_str);
        Some(Workload {
            uid,
            name: name.into(),
            namespace: namespace.into(),
            identity,
            node: node.into(),
            addresses,
            enrolment,
            ready: is_ready(status),
            probe_ports: self.probe_ports(&located.object.probes, origin),
            labels: self.labels.intern(pod_labels),
            workload_name: workload_name.into(),
            canonical_service: service.into(),
            canonical_revision: revision.into(),
            app: label("app").unwrap_or(service).into(),
            version: label("version").unwrap_or(revision).into(),
        })
    }

    fn add(&mut self, workload: Workload) {
        let index = self.workloads.all.len();
        self.uids.insert(workload.uid.clone(), index);
        let name = (Arc::clone(&workload.namespace), Arc::clone(&workload.name));
        self.workloads.by_name.insert(name, index);
        if !workload.is_on_host_network() {
            for address in &workload.addresses {
                self.workloads.by_address.insert(*address, index);
            }
        }
        self.workloads.all.push(Arc::new(workload));
    }

    fn uid(&mut self, pod: &Pod, origin: &Origin) -> Option<WorkloadUid> {
        let text = pod.metadata.uid.as_deref().unwrap_or_default();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
            let message = match text {
                "" => "the Pod is left out".to_owned(),
                _ => format!("{text:?} is no uid; the Pod is left out"),
            };
            let finding = Finding::new(Code::PodWithoutUid, origin.clone(), message);
            self.findings.push(finding.at("metadata.uid"));
            return None;
        }
        let uid = WorkloadUid::from(text);
        if let Some(first) = self.uids.get(&uid).and_then(|i| self.workloads.all.get(*i)) {
            let message = format!("{uid} is {}/{}'s already", first.namespace, first.name);
            let finding = Finding::new(Code::SharedPodUid, origin.clone(), message);
            self.findings.push(finding.at("metadata.uid"));
            return None;
        }
        Some(uid)
    }

    fn identity(&mut self, namespace: &str, spec: &PodSpec, origin: &Origin) -> Option<SpiffeId> {
        const FIELD: &str = "spec.serviceAccountName";
        let account = spec.service_account_name.as_deref();
        let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
        let key = (namespace.to_owned(), account.to_owned());
        // Kubernetes makes `default` in every namespace.
        if account != "default" && !self.objects.service_accounts.contains_key(&key) {
            let name = format!("{namespace}/{account}");
            self.report_once(Code::NoServiceAccount, name, FIELD, origin);
        }
        match SpiffeId::new(&self.options.trust_domain, namespace, account) {
            Ok(identity) => Some(identity),
            Err(error) => {
                let message = format!("{error}; the Pod is left out");
                let finding = Finding::new(Code::BadIdentity, origin.clone(), message);
                self.findings.push(finding.at(FIELD));
                None
            }
        }
    }

    fn namespace_labels(&mut self, namespace: &str, origin: &Origin) -> Labels {
        let Some(found) = self.objects.namespaces.get(namespace) else {
            let name = namespace.to_owned();
            self.report_once(Code::NoNamespace, name, "metadata.namespace", origin);
            return Labels::new();
        };
        let found: &Namespace = &found.object;
        found.metadata.labels.clone().unwrap_or_default()
    }

    fn check_node(&mut self, node: &str, origin: &Origin) {
        // Where no Nodes are given at all, they are not missed.
        if !self.objects.nodes.is_empty() && !self.objects.nodes.contains_key(node) {
            self.report_once(Code::NoNode, node.to_owned(), "spec.nodeName", origin);
        }
    }

    fn check_host_network(&mut self, enrolment: Enrolment, pod: &Labels, origin: &Origin) {
        let outside = enrolment == Enrolment::Outside(OutsideReason::HostNetwork);
        if outside && labels::wish(pod) == Wish::Join {
            let message = "the Pod asks to join and shares its node's network";
            let finding = Finding::new(Code::HostNetworkCannotJoin, origin.clone(), message);
            self.findings.push(finding.at("spec.hostNetwork"));
        }
    }

    fn addresses(&mut self, status: &PodStatus, host: bool, origin: &Origin) -> Vec<IpAddr> {
        let listed = status.pod_ips.iter().flatten().enumerate();
        let mut given: Vec<(String, &str)> =
            listed.map(|(index, entry)| (format!("status.podIPs[{index}].ip"), entry.ip.as_str())).collect();
        if let Some(single) = status.pod_ip.as_deref().filter(|ip| !ip.is_empty())
            && given.is_empty()
        {
            given.push(("status.podIP".to_owned(), single));
        }
        if given.is_empty() {
            let message = "the Pod has no address";
            let finding = Finding::new(Code::PodNotPlaced, origin.clone(), message);
            self.findings.push(finding.at("status.podIPs"));
        }
        let mut addresses = Vec::new();
        for (field, text) in given {
            match self.address(text, host) {
                Ok(address) if addresses.contains(&address) => {}
                Ok(address) => addresses.push(address),
                Err((code, message)) => {
                    let finding = Finding::new(code, origin.clone(), message);
                    self.findings.push(finding.at(field));
                }
            }
        }
        addresses
    }

    fn address(&self, text: &str, host: bool) -> Result<IpAddr, (Code, String)> {
        let address = unicast(text).map_err(|message| (Code::BadPodAddress, message))?;
        let holder = self.workloads.by_address.get(&address);
        match holder.and_then(|index| self.workloads.all.get(*index)) {
            Some(first) if !host => {
                let message = format!("{address} is {}/{}'s already", first.namespace, first.name);
                Err((Code::SharedPodAddress, message))
            }
            _ => Ok(address),
        }
    }

    fn probe_ports(&mut self, probes: &ProbePorts, origin: &Origin) -> Vec<u16> {
        for (field, message) in &probes.unknown {
            let finding = Finding::new(Code::ProbePortUnknown, origin.clone(), message.clone());
            self.findings.push(finding.at(field.clone()));
        }
        probes.ports.to_vec()
    }

    fn report_once(&mut self, code: Code, name: String, field: &str, origin: &Origin) {
        if self.reported.insert((code, name.clone())) {
            let message = format!("{name} does not exist");
            let finding = Finding::new(code, origin.clone(), message);
            self.findings.push(finding.at(field));
        }
    }
}

fn check_labels(origin: &Origin, labels: Option<&Labels>, findings: &mut Vec<Finding>) {
    let known: [(&str, &[&str]); 2] =
        [(labels::JOIN, &["enabled", "disabled"]), (labels::DATAPLANE_MODE, &["ambient", "none"])];
    for (key, values) in known {
        let Some(value) = labels.and_then(|labels| labels.get(key)) else {
            continue;
        };
        if !values.contains(&value.as_str()) {
            let message = format!("{value:?} means nothing");
            let finding = Finding::new(Code::BadJoinLabel, origin.clone(), message);
            findings.push(finding.at(format!("metadata.labels[{key:?}]")));
        }
    }
}

/// The kind and name of the owner that manages the Pod.
fn controller(pod: &Pod) -> Option<(&str, &str)> {
    let owners = pod.metadata.owner_references.as_deref()?;
    let controller = owners.iter().find(|owner| owner.controller == Some(true));
    let owner = controller.or(owners.first())?;
    (!owner.name.is_empty()).then_some((owner.kind.as_str(), owner.name.as_str()))
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
