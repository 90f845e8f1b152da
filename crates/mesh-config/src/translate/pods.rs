//! Pods to workloads.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::labels::{self, Lookup, Wish};
use mesh_core::locality::{self, Locality};
use mesh_core::{
    Enrolment, LabelSet, NO_REQUEST_METRICS, OutsideReason, SpiffeId, Template, Unwatched, Workload, WorkloadUid,
};

use super::Translator;
use super::finding_set::Owner;
use crate::code::Code;
use crate::finding::{Finding, Origin};
use crate::kind::Kind;
use crate::kubernetes::{DNS_CAPTURE, Pod};
use crate::object::{Key, Located};
use crate::texts;

/// Distinct accounts' identities that are kept for the next Pod.
const MAX_IDENTITIES: usize = 100_000;

/// What is said of a Pod while it is looked at.
struct Said<'a> {
    key: &'a Key,
    located: &'a Located<Pod>,
    findings: Vec<Finding>,
}

impl Said<'_> {
    fn add(&mut self, code: Code, field: impl Into<String>, message: impl Into<String>) {
        let origin = self.located.origin_of(Kind::Pod, self.key);
        self.findings.push(Finding::new(code, origin, message).at(field));
    }
}

impl Translator {
    /// Looks at all Pods of the queue again, and at those that this concerns: in order, so that what an earlier one gives up
    /// or takes is known when a later one is looked at.
    pub(super) fn settle_pods(&mut self, mut queue: BTreeSet<Key>) {
        while let Some(key) = queue.pop_first() {
            self.withdraw_pod(&key, &mut queue);
            let Some(located) = self.definitions.objects.pods.get(&key).cloned() else {
                self.findings.set(Owner::Pod(key), Vec::new());
                continue;
            };
            let mut said = Said { key: &key, located: &located, findings: Vec::new() };
            let workload = self.workload(&located, &mut said, &mut queue);
            let findings = said.findings;
            if let Some(workload) = workload {
                let before = self.before.workload_before(&key).filter(|before| **before == workload);
                self.snapshot.put_workload(before.unwrap_or_else(|| Arc::new(workload)));
            }
            self.findings.set(Owner::Pod(key), findings);
        }
        self.missing.tell(&self.definitions.objects, &mut self.findings);
    }

    /// Takes out what the Pod was, and has those looked at who wanted what it had: they come after it.
    fn withdraw_pod(&mut self, key: &Key, queue: &mut BTreeSet<Key>) {
        self.missing.forget(key);
        self.uids.forget(key);
        self.addresses.forget(key);
        let workload = self.snapshot.remove_workload(&key.0, &key.1);
        if let Some(workload) = &workload {
            self.uids.given_up(&workload.uid, queue);
            workload.addresses.iter().for_each(|address| self.addresses.given_up(address, queue));
        }
        self.before.note_workload(key, workload);
    }

    fn workload(&mut self, located: &Located<Pod>, said: &mut Said<'_>, queue: &mut BTreeSet<Key>) -> Option<Workload> {
        let (pod, key) = (&*located.object, said.key);
        let (namespace, name) = (&key.0, &key.1);
        if pod.ended {
            return None;
        }
        let uid = uid(pod, said)?;
        if pod.node.is_empty() {
            said.add(Code::PodNotPlaced, "spec.nodeName", "the Pod has no node");
            return None;
        }
        self.check_references(pod, key);
        let identity = self.identity(namespace, &pod.account, said)?;
        // Only who would be a workload has a claim to what another may want.
        self.claim_uid(&uid, said, queue)?;
        let found = self.definitions.objects.namespaces.get(&**namespace);
        let of_namespace = texts::labels(found.and_then(|found| found.object.metadata.labels.as_ref()));
        if found.is_none() {
            self.missing.add(key, Code::NoNamespace, Arc::clone(namespace));
        }
        check_labels(|| located.origin_of(Kind::Pod, key), &pod.labels, &mut said.findings);
        let enrolment = labels::enrolment(&of_namespace, &pod.labels, pod.host_network);
        check_host_network(enrolment, &pod.labels, said);
        for (field, message) in pod.probes.iter().flat_map(|probes| &probes.unknown) {
            said.add(Code::ProbePortUnknown, field.clone(), message.clone());
        }
        let service = labels::canonical_service(&pod.labels, &pod.workload_name);
        let revision = labels::canonical_revision(&pod.labels);
        let template = texts::template(Template {
            namespace: Arc::clone(namespace),
            identity,
            enrolment,
            probe_ports: pod.probes.as_ref().map(|probes| probes.ports.to_vec()).unwrap_or_default(),
            asks_itself: asks_itself(pod, said),
            unwatched: Unwatched::of(&of_namespace, &pod.labels),
            labels: pod.labels.clone(),
            workload_name: Arc::clone(&pod.workload_name),
            canonical_service: texts::text(service),
            canonical_revision: texts::text(revision),
            app: texts::text(pod.labels.get("app").unwrap_or(service)),
            version: texts::text(pod.labels.get("version").unwrap_or(revision)),
        });
        Some(Workload {
            uid,
            name: Arc::clone(name),
            node: Arc::clone(&pod.node).into(),
            locality: self.locality(pod),
            addresses: self.pod_addresses(pod, said, queue).into(),
            ready: pod.ready,
            template,
        })
    }

    /// As the Pod says itself, in Istio's label, else as its Node says.
    fn locality(&self, pod: &Pod) -> Arc<Locality> {
        match pod.labels.get(locality::OF_POD) {
            // Labels have no slashes.
            Some(text) => Arc::new(Locality::parse(&text.replace('.', "/"))),
            None => {
                let node = self.definitions.objects.nodes.get(&pod.node);
                node.map_or_else(Arc::default, |node| Arc::clone(&node.object.locality))
            }
        }
    }

    fn claim_uid(&mut self, uid: &WorkloadUid, said: &mut Said<'_>, queue: &mut BTreeSet<Key>) -> Option<()> {
        let Some(holder) = self.snapshot.workload_by_uid(uid).map(|holder| key_of(holder)) else {
            return Some(());
        };
        if holder < *said.key {
            said.add(Code::SharedPodUid, "metadata.uid", format!("{uid} is {}/{}'s already", holder.0, holder.1));
            self.uids.lose(said.key, uid);
            return None;
        }
        self.withdraw_pod(&holder, queue);
        queue.insert(holder);
        Some(())
    }

    fn identity(&mut self, namespace: &Arc<str>, account: &Arc<str>, said: &mut Said<'_>) -> Option<SpiffeId> {
        let key = (Arc::clone(namespace), Arc::clone(account));
        if let Some(known) = self.identities.get(&key) {
            return Some(known.clone());
        }
        match SpiffeId::new(&self.options.trust_domain, namespace, account) {
            Ok(identity) => {
                if self.identities.len() >= MAX_IDENTITIES {
                    self.identities.clear();
                }
                self.identities.insert(key, identity.clone());
                Some(identity)
            }
            Err(error) => {
                said.add(Code::BadIdentity, "spec.serviceAccountName", format!("{error}; the Pod is left out"));
                None
            }
        }
    }

    fn check_references(&mut self, pod: &Pod, key: &Key) {
        let objects = &self.definitions.objects;
        // Where no Nodes are given at all, they are not missed.
        if !objects.nodes.is_empty() && !objects.nodes.contains_key(&pod.node) {
            self.missing.add(key, Code::NoNode, Arc::clone(&pod.node));
        }
        // Kubernetes makes `default` in every namespace.
        let account = (Arc::clone(&key.0), Arc::clone(&pod.account));
        if *pod.account != *"default" && !objects.service_accounts.contains_key(&account) {
            self.missing.add(key, Code::NoServiceAccount, format!("{}/{}", account.0, account.1).into());
        }
    }

    fn pod_addresses(&mut self, pod: &Pod, said: &mut Said<'_>, queue: &mut BTreeSet<Key>) -> Vec<IpAddr> {
        if pod.addresses.is_empty() {
            said.add(Code::PodNotPlaced, "status.podIPs", "the Pod has no address");
        }
        let mut addresses = Vec::with_capacity(pod.addresses.len());
        for (index, given) in pod.addresses.iter().enumerate() {
            match given.unicast() {
                Err(message) => said.add(Code::BadPodAddress, pod.address_field(index), message),
                Ok(address) if addresses.contains(&address) => {}
                Ok(address) if pod.host_network => addresses.push(address),
                Ok(address) => match self.holder(address, said.key, queue) {
                    None => addresses.push(address),
                    Some(holder) => {
                        let message = format!("{address} is {}/{}'s already", holder.0, holder.1);
                        said.add(Code::SharedPodAddress, pod.address_field(index), message);
                    }
                },
            }
        }
        addresses
    }

    /// Who has the address, if not `key` is to have it.
    fn holder(&mut self, address: IpAddr, key: &Key, queue: &mut BTreeSet<Key>) -> Option<Key> {
        let holder = key_of(self.snapshot.workload_by_address(address)?);
        if holder < *key {
            self.addresses.lose(key, &address);
            return Some(holder);
        }
        self.withdraw_pod(&holder, queue);
        queue.insert(holder);
        None
    }
}

fn uid(pod: &Pod, said: &mut Said<'_>) -> Option<WorkloadUid> {
    let text = pod.uid.to_string();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
        let message = match &*text {
            "" => "the Pod is left out".to_owned(),
            text => format!("{text:?} is no uid; the Pod is left out"),
        };
        said.add(Code::PodWithoutUid, "metadata.uid", message);
        return None;
    }
    Some(pod.uid.clone())
}

fn key_of(workload: &Workload) -> Key {
    (Arc::clone(&workload.namespace), Arc::clone(&workload.name))
}

fn check_host_network(enrolment: Enrolment, pod: &LabelSet, said: &mut Said<'_>) {
    let outside = enrolment == Enrolment::Outside(OutsideReason::HostNetwork);
    if outside && labels::wish(pod) == Wish::Join {
        let message = "the Pod asks to join and shares its node's network";
        said.add(Code::HostNetworkCannotJoin, "spec.hostNetwork", message);
    }
}

/// Whether the Pod is told of no hosts. What means nothing asks for nothing.
fn asks_itself(pod: &Pod, said: &mut Said<'_>) -> bool {
    match pod.dns_capture.as_deref() {
        None | Some("true") => false,
        Some("false") => true,
        Some(other) => {
            let field = format!("metadata.annotations[{DNS_CAPTURE:?}]");
            said.add(Code::BadCaptureAnnotation, field, format!("{other:?} is neither true nor false"));
            false
        }
    }
}

/// Says which labels of an object mean nothing.
pub(super) fn check_labels(origin: impl Fn() -> Origin, labels: &impl Lookup, findings: &mut Vec<Finding>) {
    let known: [(&str, &[&str]); 2] =
        [(labels::JOIN, &["enabled", "disabled"]), (labels::DATAPLANE_MODE, &["ambient", "none"])];
    for (key, values) in known {
        let Some(value) = labels.value(key) else {
            continue;
        };
        if !values.contains(&value) {
            let message = format!("{value:?} means nothing");
            let finding = Finding::new(Code::BadJoinLabel, origin(), message);
            findings.push(finding.at(format!("metadata.labels[{key:?}]")));
        }
    }
    if let Some(value) = labels.value(NO_REQUEST_METRICS).filter(|value| Unwatched::read(value).is_none()) {
        let finding = Finding::new(Code::BadPortsLabel, origin(), format!("{value:?} means nothing"));
        findings.push(finding.at(format!("metadata.labels[{NO_REQUEST_METRICS:?}]")));
    }
}
