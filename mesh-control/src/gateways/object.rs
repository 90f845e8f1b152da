//! Gateways as the API server has them, as far as they say how they are to be run.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use kube::api::{ApiResource, GroupVersionKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The controller of our classes.
pub(crate) const CONTROLLER: &str = "mesh.dev/gateway-controller";
/// How many replicas run; without it one, or as many as somebody scales the Deployment to.
const REPLICAS: &str = "mesh.dev/replicas";
/// Up to how many replicas run, by the load on their processors.
const MAX_REPLICAS: &str = "mesh.dev/max-replicas";
/// How long clients may do nothing: an annotation, and the proxy's flag that it stands for.
const LIMITS: [(&str, &str); 2] =
    [("mesh.dev/idle-timeout", "--idle-timeout"), ("mesh.dev/stream-idle-timeout", "--stream-idle-timeout")];
/// Of which type a gateway's Service is: Istio's annotation.
const SERVICE_TYPE: &str = "networking.istio.io/service-type";
/// The types that a gateway's Service may have; without the annotation the first.
const SERVICE_TYPES: [&str; 3] = ["LoadBalancer", "NodePort", "ClusterIP"];
/// A Service's name is a DNS label (RFC 1035).
const LONGEST_NAME: usize = 63;
/// The most replicas that are taken for meant.
const MOST: u32 = 1000;

/// A Gateway.
pub(crate) type GatewayObject = kube::api::Object<GatewaySpec, Value>;

/// The kind.
pub(crate) fn gateways() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway"))
}

/// What a Gateway asks for.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GatewaySpec {
    pub(crate) gateway_class_name: String,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) infrastructure: Infrastructure,
    pub(crate) addresses: Vec<RequestedAddress>,
}

/// An address that a Gateway asks for.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct RequestedAddress {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) value: Option<String>,
}

impl RequestedAddress {
    /// Whether it is of the type that is understood.
    pub(crate) fn is_ip(&self) -> bool {
        self.kind.as_deref().is_none_or(|kind| kind == "IPAddress")
    }

    /// The address; none where any will do.
    pub(crate) fn ip(&self) -> Option<&str> {
        self.value.as_deref().filter(|value| self.is_ip() && !value.is_empty())
    }
}

/// One of its listeners.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) protocol: String,
}

/// What everything that is made for it gets.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Infrastructure {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// Parameters of an implementation's own; there are none.
    pub(crate) parameters_ref: Option<Value>,
}

/// What a Gateway is run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// For traffic inside the mesh.
    Waypoint,
    /// For traffic from outside.
    Ingress,
}

/// What classes of ours stand for, and those of Istio's whose manifests people have. The first of a role is ours.
pub(crate) const CLASSES: [(&str, Role); 4] = [
    ("mesh-waypoint", Role::Waypoint),
    ("istio-waypoint", Role::Waypoint),
    ("mesh", Role::Ingress),
    ("istio", Role::Ingress),
];

/// What is made for a Gateway is called: as the Gateway where it is a waypoint, which nodes look for by that name, and
/// `GATEWAY-CLASS` where it lets traffic in (GEP-1762), so that it is in no Service's way.
pub(crate) fn made_name((gateway, class): (&str, &str), role: Role) -> String {
    let full = match role {
        Role::Waypoint => return gateway.to_owned(),
        Role::Ingress => format!("{gateway}-{class}"),
    };
    if full.len() <= LONGEST_NAME {
        return full;
    }
    // Two long names that begin alike are not to be one.
    let hash = full
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let kept: String = full.chars().take(LONGEST_NAME - 9).collect();
    format!("{}-{:08x}", kept.trim_end_matches(['-', '.']), hash >> 32)
}

/// The type of a gateway's Service; any other value is treated as unset.
pub(crate) fn service_type(gateway: &GatewayObject) -> &'static str {
    let said = gateway.annotations().get(SERVICE_TYPE);
    let known = said.and_then(|said| SERVICE_TYPES.iter().find(|known| *known == said));
    if let (Some(value), None) = (said, known) {
        tracing::warn!(
            gateway = gateway.name_any(),
            annotation = SERVICE_TYPE,
            value,
            "no type of Service: passed over"
        );
    }
    known.unwrap_or(&SERVICE_TYPES[0])
}

/// The proxy's flags of how long clients may do nothing; what is no time is passed over.
pub(crate) fn limits(gateway: &GatewayObject) -> Vec<String> {
    let flag = |(annotation, flag): &(&str, &str)| {
        let text = gateway.annotations().get(*annotation)?;
        let limit = seconds(text);
        if limit.is_none() {
            let name = gateway.name_any();
            tracing::warn!(gateway = name, annotation, value = text, "no time such as 90s, 5m or 1h: passed over");
        }
        Some(format!("{flag}={}", limit?))
    };
    LIMITS.iter().filter_map(flag).collect()
}

/// `90s`, `5m` or `1h`, in seconds.
fn seconds(text: &str) -> Option<u32> {
    let (number, unit) = [("s", 1), ("m", 60), ("h", 3600)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    number.parse::<u32>().ok()?.checked_mul(unit)
}

/// What Gateways of a class are run as.
pub(crate) fn role(class: &str) -> Option<Role> {
    CLASSES.iter().find(|(name, _)| *name == class).map(|(_, role)| *role)
}

/// How many replicas are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Scale {
    /// So many, or at least so many.
    pub(crate) replicas: Option<u32>,
    /// By load, up to so many.
    pub(crate) most: Option<u32>,
}

impl Scale {
    /// What the annotations say; what is no number of replicas says nothing.
    pub(crate) fn of(gateway: &GatewayObject) -> Self {
        let number = |key: &str| {
            let text = gateway.annotations().get(key)?;
            let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
            if number.is_none() {
                let name = gateway.name_any();
                tracing::warn!(
                    gateway = name,
                    annotation = key,
                    value = text,
                    "no number from 1 to {MOST}: passed over"
                );
            }
            number
        };
        Self { replicas: number(REPLICAS), most: number(MAX_REPLICAS) }
    }

    /// Whether one may be evicted while others serve.
    pub(crate) fn is_several(self) -> bool {
        self.replicas.unwrap_or(1) > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_say_how_long_clients_may_do_nothing() {
        let mut gateway = GatewayObject::new("edge", &gateways(), GatewaySpec::default());
        assert!(limits(&gateway).is_empty());
        for (text, expected) in [
            ("90s", &["--idle-timeout=90"][..]),
            ("5m", &["--idle-timeout=300"]),
            ("1h", &["--idle-timeout=3600"]),
            ("0s", &["--idle-timeout=0"]),
            ("1.5h", &[]),
            ("90", &[]),
            ("-1s", &[]),
            ("2000000h", &[]),
        ] {
            gateway.metadata.annotations =
                Some(BTreeMap::from([("mesh.dev/idle-timeout".to_owned(), text.to_owned())]));
            assert_eq!(limits(&gateway), expected, "{text}");
        }
    }
}
