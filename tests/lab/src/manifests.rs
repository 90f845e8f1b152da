//! The Kubernetes objects that the lab writes, as an API server would show them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::service::{Backends, Service};

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// What a Pod's manifest says.
pub(crate) struct PodObject<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    pub(crate) labels: &'a Labels,
    pub(crate) annotations: &'a Labels,
    pub(crate) service_account: &'a str,
    pub(crate) node: &'a str,
    pub(crate) node_addresses: &'a [IpAddr],
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) host_network: bool,
    pub(crate) ports: &'a [(String, u16)],
    pub(crate) probe: Option<&'a str>,
    pub(crate) container_id: &'a str,
    pub(crate) ready: bool,
}

/// A v1 Namespace.
pub(crate) fn namespace(name: &str, labels: &Labels) -> Value {
    let mut labels = labels.clone();
    labels.insert("kubernetes.io/metadata.name".into(), name.into());
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}, "status": {"phase": "Active"}})
}

/// A v1 Node.
pub(crate) fn node(name: &str, addresses: &[IpAddr], pod_ranges: &[String]) -> Value {
    let addresses: Vec<_> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address.to_string()})).collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDR": pod_ranges.first(), "podCIDRs": pod_ranges},
        "status": {"addresses": addresses, "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// A v1 ServiceAccount.
pub(crate) fn service_account(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": name}})
}

/// A v1 Pod that runs.
pub(crate) fn pod(pod: &PodObject<'_>) -> Value {
    let ports: Vec<_> =
        pod.ports.iter().map(|(name, port)| json!({"name": name, "containerPort": port, "protocol": "TCP"})).collect();
    let ready = status(pod.ready);
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
            "labels": pod.labels, "annotations": pod.annotations,
        },
        "spec": {
            "nodeName": pod.node,
            "serviceAccountName": pod.service_account,
            "hostNetwork": pod.host_network,
            "containers": [{
                "name": "main", "image": "lab", "ports": ports,
                "readinessProbe": pod.probe.map(|port| json!({"tcpSocket": {"port": port}})),
            }],
        },
        "status": {
            "phase": "Running",
            "qosClass": "BestEffort",
            "hostIP": pod.node_addresses.first(),
            "hostIPs": addresses(pod.node_addresses),
            "podIP": pod.addresses.first(),
            "podIPs": addresses(pod.addresses),
            "conditions": [
                condition("PodScheduled", "True"), condition("Initialized", "True"),
                condition("ContainersReady", ready), condition("Ready", ready),
            ],
            "containerStatuses": [{
                "name": "main", "image": "lab", "imageID": "lab", "restartCount": 0, "ready": pod.ready,
                "containerID": format!("containerd://{}", pod.container_id),
            }],
        },
    })
}

fn status(yes: bool) -> &'static str {
    if yes { "True" } else { "False" }
}

fn addresses(addresses: &[IpAddr]) -> Vec<Value> {
    addresses.iter().map(|address| json!({"ip": address})).collect()
}

/// A v1 Service.
pub(crate) fn service(service: &Service) -> Value {
    let ports: Vec<_> = service
        .spec
        .ports
        .iter()
        .map(|port| json!({"name": port.name, "port": port.port, "targetPort": port.target_port, "protocol": port.protocol.upper()}))
        .collect();
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": service.namespace(), "name": service.name()},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": service.vip4(),
            "clusterIPs": [service.vip4(), service.vip6()],
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack",
            "ports": ports,
        },
    });
    if let Some(preferred) = &service.spec.traffic_distribution {
        object["spec"]["trafficDistribution"] = json!(preferred);
    }
    if let Some(policy) = &service.spec.internal_traffic_policy {
        object["spec"]["internalTrafficPolicy"] = json!(policy);
    }
    if let Some(affinity) = &service.spec.session_affinity {
        object["spec"]["sessionAffinity"] = json!(affinity);
    }
    if let Backends::Selector(labels) = &service.spec.backends {
        object["spec"]["selector"] = json!(labels);
    }
    object
}

/// A pod behind a Service, with its address of the slice's family.
pub(crate) struct SliceEndpoint<'a> {
    pub(crate) address: IpAddr,
    pub(crate) node: &'a str,
    pub(crate) pod: &'a str,
    pub(crate) uid: &'a str,
    pub(crate) ready: bool,
}

/// A discovery.k8s.io/v1 EndpointSlice of one family, named by [`slice_name`].
pub(crate) fn endpoint_slice(service: &Service, family: Family, endpoints: &[SliceEndpoint<'_>]) -> Value {
    let namespace = service.namespace();
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|endpoint| {
            json!({
                "addresses": [endpoint.address],
                "nodeName": endpoint.node,
                "conditions": {"ready": endpoint.ready, "serving": endpoint.ready, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": namespace, "name": endpoint.pod, "uid": endpoint.uid},
            })
        })
        .collect();
    let ports: Vec<_> = service
        .spec
        .ports
        .iter()
        .map(|port| json!({"name": port.name, "port": port.target_port, "protocol": port.protocol.upper()}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace,
            "name": slice_name(service.name(), family),
            "labels": {
                "kubernetes.io/service-name": service.name(),
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": family.address_type(),
        "endpoints": endpoints,
        "ports": ports,
    })
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn holds(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    fn address_type(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The name of a Service's slice.
pub(crate) fn slice_name(service: &str, family: Family) -> String {
    format!("{service}-{}", family.address_type().to_ascii_lowercase())
}
