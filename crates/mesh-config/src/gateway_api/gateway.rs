//! Gateway of gateway.networking.k8s.io, as far as it stands for a waypoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::PolicyName;
use mesh_core::policy::Selector;
use serde::Deserialize;
use serde_json::Value;

use crate::code::Code;
use crate::finding::ObjectName;
use crate::istio::{Age, Flaw, Remark, decode, policy_name};

/// The classes whose Gateways are waypoints: ours, and Istio's, whose manifests people have.
const WAYPOINT_CLASSES: [&str; 2] = ["mesh-waypoint", "istio-waypoint"];

/// A Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// Its class.
    pub class: Arc<str>,
    /// Whether it is a waypoint.
    pub waypoint: bool,
    /// The label `istio.io/waypoint-for`.
    pub waypoint_for: Option<String>,
    /// The namespaces whose Services and workloads may name it as their waypoint.
    pub allowed: AllowedNamespaces,
    /// When it was made.
    pub age: Age,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

/// Namespaces that may attach something to a Gateway (`allowedRoutes.namespaces`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedNamespaces {
    /// The Gateway's own.
    Same,
    /// All.
    All,
    /// Those with the labels; none stands for any labels.
    Selected(Option<Selector>),
    /// None.
    Nobody,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    gateway_class_name: String,
    listeners: Vec<RawListener>,
    addresses: Option<Value>,
    infrastructure: Option<Value>,
    allowed_listeners: Option<Value>,
    tls: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawListener {
    name: String,
    #[serde(rename = "port")]
    _port: u16,
    protocol: String,
    hostname: Option<String>,
    tls: Option<Value>,
    allowed_routes: Option<RawAllowedRoutes>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawAllowedRoutes {
    namespaces: Option<RawNamespaces>,
    #[serde(rename = "kinds")]
    _kinds: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawNamespaces {
    from: Option<RawFrom>,
    selector: Option<RawSelector>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum RawFrom {
    All,
    Same,
    Selector,
    None,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawSelector {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Value>,
}

impl Gateway {
    pub(crate) fn read(value: Value, name: &ObjectName) -> Result<Self, Flaw> {
        let label = value.pointer("/metadata/labels/istio.io~1waypoint-for").and_then(Value::as_str);
        let waypoint_for = label.map(str::to_owned);
        let resource = decode::<Spec>(value)?;
        let age = Age::of(&resource.metadata);
        let Some(spec) = resource.spec else {
            return Err(Flaw::value("spec.gatewayClassName", "the Gateway is of no class"));
        };
        let waypoint = WAYPOINT_CLASSES.contains(&spec.gateway_class_name.as_str());
        let class: Arc<str> = spec.gateway_class_name.as_str().into();
        let mut remarks = Vec::new();
        if !waypoint {
            let message = format!("Gateways of class {:?} carry nothing yet", spec.gateway_class_name);
            remarks.push(Remark::new(Code::NotEnforced, "spec.gatewayClassName", message));
            let allowed = AllowedNamespaces::Nobody;
            return Ok(Self { name: policy_name(name), class, waypoint, waypoint_for, allowed, age, remarks });
        }
        let not_honoured = [
            ("addresses", &spec.addresses),
            ("infrastructure", &spec.infrastructure),
            ("allowedListeners", &spec.allowed_listeners),
            ("tls", &spec.tls),
        ];
        for (field, _) in not_honoured.iter().filter(|(_, value)| value.is_some()) {
            remarks.push(Remark::new(
                Code::FieldNotHonoured,
                format!("spec.{field}"),
                "it means nothing to a waypoint",
            ));
        }
        let mut allowed = AllowedNamespaces::Same;
        for (index, listener) in spec.listeners.into_iter().enumerate() {
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
            let namespaces = listener.allowed_routes.and_then(|routes| routes.namespaces);
            if let Some(namespaces) = namespaces {
                allowed = namespaces.read(&format!("{field}.allowedRoutes.namespaces"))?;
            }
        }
        Ok(Self { name: policy_name(name), class, waypoint, waypoint_for, allowed, age, remarks })
    }
}

impl RawNamespaces {
    fn read(self, field: &str) -> Result<AllowedNamespaces, Flaw> {
        match (self.from.unwrap_or(RawFrom::Same), self.selector) {
            (RawFrom::All, _) => Ok(AllowedNamespaces::All),
            (RawFrom::Same, _) => Ok(AllowedNamespaces::Same),
            (RawFrom::None, _) => Ok(AllowedNamespaces::Nobody),
            (RawFrom::Selector, None) => {
                Err(Flaw::value(format!("{field}.selector"), "from: Selector needs a selector"))
            }
            (RawFrom::Selector, Some(selector)) if selector.match_expressions.is_some() => {
                let message = "expressions are not read here; write matchLabels";
                Err(Flaw::value(format!("{field}.selector.matchExpressions"), message))
            }
            (RawFrom::Selector, Some(selector)) => {
                Ok(AllowedNamespaces::Selected(Selector::new(selector.match_labels.unwrap_or_default())))
            }
        }
    }
}
