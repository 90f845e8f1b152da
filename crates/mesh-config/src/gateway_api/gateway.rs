//! Gateway of gateway.networking.k8s.io.

use std::sync::Arc;

use mesh_core::PolicyName;
use mesh_core::l7::topology::TopologyPart;
use serde::Deserialize;
use serde_json::Value;

use super::listener::{AllowedNamespaces, Listener, RawAllowedListeners, RawListener};
use super::tls::{GatewayTls, RawGatewayTls};
use crate::code::Code;
use crate::finding::ObjectName;
use crate::istio::{Age, Flaw, PROXY_CONFIG, ProxyConfig, Remark, decode, policy_name};

/// The classes whose Gateways are waypoints: ours, and Istio's, whose manifests people have.
const WAYPOINT_CLASSES: [&str; 2] = ["mesh-waypoint", "istio-waypoint"];
/// The classes whose Gateways let traffic in from outside, likewise.
const INGRESS_CLASSES: [&str; 2] = ["mesh", "istio"];
/// Listeners of one Gateway; the API itself allows 64.
const MAX_LISTENERS: usize = 64;

/// A Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// Its class.
    pub class: Arc<str>,
    /// What it is.
    pub role: Role,
    /// What it says of what stands before it.
    pub topology: TopologyPart,
    /// The label `istio.io/waypoint-for`.
    pub waypoint_for: Option<String>,
    /// When it was made.
    pub age: Age,
    /// Which version of it this is, as the API server counts.
    pub generation: Option<i64>,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

/// What a Gateway is, by its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A waypoint.
    Waypoint {
        /// The namespaces whose Services and workloads may name it as theirs.
        allowed: AllowedNamespaces,
    },
    /// Lets traffic in from outside.
    Ingress(Ingress),
    /// Another program's.
    Foreign,
}

/// What a Gateway that lets traffic in asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingress {
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// The namespaces whose ListenerSets may add listeners.
    pub sets: AllowedNamespaces,
    /// The certificates that clients show, and backends are shown.
    pub tls: GatewayTls,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    gateway_class_name: String,
    listeners: Vec<RawListener>,
    addresses: Option<Value>,
    infrastructure: Option<Value>,
    allowed_listeners: Option<RawAllowedListeners>,
    tls: Option<RawGatewayTls>,
}

impl Gateway {
    pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<Self, Flaw> {
        let label = value.pointer("/metadata/labels/istio.io~1waypoint-for").and_then(Value::as_str);
        let waypoint_for = label.map(str::to_owned);
        let ProxyConfig { topology, mut remarks } = proxy_config(value)?;
        let resource = decode::<Spec>(value)?;
        let (age, generation) = (Age::of(&resource.metadata), resource.metadata.generation);
        let Some(spec) = resource.spec else {
            return Err(Flaw::value("spec.gatewayClassName", "the Gateway is of no class"));
        };
        let class: Arc<str> = spec.gateway_class_name.as_str().into();
        let name = policy_name(name);
        let role = if WAYPOINT_CLASSES.contains(&&*class) {
            spec.waypoint(&mut remarks)?
        } else if INGRESS_CLASSES.contains(&&*class) {
            spec.ingress(&name.namespace, &mut remarks)?
        } else {
            let message = format!("Gateways of class {class:?} are another program's");
            remarks.push(Remark::new(Code::NotEnforced, "spec.gatewayClassName", message));
            Role::Foreign
        };
        if !matches!(role, Role::Ingress(_)) && topology != TopologyPart::default() {
            let message = "gatewayTopology is about gateways that let traffic in";
            remarks.push(Remark::new(Code::FieldNotHonoured, format!("metadata.annotations[{PROXY_CONFIG}]"), message));
        }
        Ok(Self { name, class, role, topology, waypoint_for, age, generation, remarks })
    }
}

/// What Istio's users write of how the gateway's proxy is set up, at the Gateway itself or at what is made for it.
fn proxy_config(value: &Value) -> Result<ProxyConfig, Flaw> {
    let mut whole = ProxyConfig::default();
    for place in ["metadata", "spec.infrastructure"] {
        let pointer = format!("/{}/annotations/{}", place.replace('.', "/"), PROXY_CONFIG.replace('/', "~1"));
        if let Some(text) = value.pointer(&pointer).and_then(Value::as_str) {
            let read = ProxyConfig::of_text(text, &format!("{place}.annotations[{PROXY_CONFIG}]"))?;
            whole.topology = read.topology.or(whole.topology);
            whole.remarks.extend(read.remarks);
        }
    }
    Ok(whole)
}

impl Spec {
    fn waypoint(self, remarks: &mut Vec<Remark>) -> Result<Role, Flaw> {
        let not_honoured = [
            ("addresses", self.addresses.is_some()),
            ("infrastructure", self.infrastructure.is_some()),
            ("allowedListeners", self.allowed_listeners.is_some()),
            ("tls", self.tls.is_some()),
        ];
        for (field, _) in not_honoured.iter().filter(|(_, given)| *given) {
            let message = "it means nothing to a waypoint";
            remarks.push(Remark::new(Code::FieldNotHonoured, format!("spec.{field}"), message));
        }
        let mut allowed = AllowedNamespaces::Same;
        for (index, mut listener) in self.listeners.into_iter().enumerate() {
            let field = format!("spec.listeners[{index}]");
            if listener.protocol != "HBONE" {
                let message =
                    format!("listener {} is not of protocol HBONE, and a waypoint has no other", listener.name);
                remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.protocol"), message));
                continue;
            }
            for (inner, given) in [("hostname", listener.hostname.is_some()), ("tls", listener.tls.is_some())] {
                if given {
                    let message = "it means nothing to a waypoint";
                    remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.{inner}"), message));
                }
            }
            allowed = listener.allowed(&field)?.unwrap_or(allowed);
        }
        Ok(Role::Waypoint { allowed })
    }

    fn ingress(self, namespace: &str, remarks: &mut Vec<Remark>) -> Result<Role, Flaw> {
        let sets = self.allowed_listeners.map_or(Ok(AllowedNamespaces::Nobody), RawAllowedListeners::read)?;
        let tls = self.tls.map_or_else(|| Ok(GatewayTls::default()), |tls| tls.read(namespace))?;
        if self.listeners.len() > MAX_LISTENERS {
            let message = format!("{} listeners are more than {MAX_LISTENERS}", self.listeners.len());
            return Err(Flaw::value("spec.listeners", message));
        }
        let read =
            |(index, raw): (usize, RawListener)| raw.read(&format!("spec.listeners[{index}]"), namespace, remarks);
        let listeners = self.listeners.into_iter().enumerate().map(read).collect();
        Ok(Role::Ingress(Ingress { listeners, sets, tls }))
    }
}
