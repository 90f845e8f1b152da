//! Objects in force as others are told of them: what translation looks at, and nothing else.
//!
//! Whoever reads what is told translates it to the same snapshot, by the same code. Of Secrets nothing is ever told.

use std::sync::Arc;

use mesh_core::locality::{REGION, SUBZONE, ZONE};
use mesh_core::ordered::Named;
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::finding::ObjectName;
use crate::istio::LOG_SAMPLING;
use crate::kind::Kind;
use crate::kubernetes::{DNS_CAPTURE, SERVICE_NAME, TRAFFIC_DISTRIBUTION};
use crate::texts;

/// What is told of an object, in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The version in force, as far as translation looks at it; where nothing but a stand-in is in force, the version that it
    /// stands in for.
    pub object: Arc<str>,
    /// The newer version, which cannot be read.
    pub refused: Option<Arc<str>>,
}

/// An object that is told of.
#[derive(Debug, PartialEq, Eq)]
pub struct Served {
    path: Box<str>,
    /// What is told.
    pub source: Arc<Source>,
}

impl Served {
    pub(crate) fn new(name: &ObjectName, source: Arc<Source>) -> Self {
        Self { path: name.path().into(), source }
    }

    /// The object's name, as [`ObjectName::path`] writes it.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Named for Served {
    fn key(&self) -> (&str, &str) {
        ("", &self.path)
    }
}

impl ObjectName {
    /// Group, kind, namespace and name with slashes between them; no part of a name that an API server takes has one.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}/{}/{}", self.group, self.kind, self.namespace.as_deref().unwrap_or_default(), self.name)
    }

    /// Reads what [`ObjectName::path`] writes; none where it is not of that form.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        let mut parts = path.splitn(4, '/').map(texts::text);
        let (group, kind, namespace) = (parts.next()?, parts.next()?, parts.next()?);
        let name = parts.next().filter(|name| !name.is_empty())?;
        (!kind.is_empty()).then_some(Self { group, kind, namespace: Some(namespace).filter(|it| !it.is_empty()), name })
    }
}

/// What is told of a value that is read; none of a Secret.
pub(crate) fn told(kind: Kind, value: &Value) -> Option<Arc<str>> {
    let keep = match kind {
        // Who has TLS end, or begins it, reads these itself.
        Kind::Secret | Kind::CaBundle => return None,
        Kind::Namespace => NAMESPACE,
        Kind::Node => NODE,
        Kind::ServiceAccount => PRESENCE,
        Kind::Pod => POD,
        Kind::Service => SERVICE,
        Kind::EndpointSlice => ENDPOINT_SLICE,
        _ => RESOURCE,
    };
    written(value, &keep)
}

/// What is told of a value that cannot be read: what is wrong with it may be anywhere.
pub(crate) fn told_whole(kind: Kind, value: &Value) -> Option<Arc<str>> {
    (!matches!(kind, Kind::Secret | Kind::CaBundle)).then(|| written(value, &Keep::All))?
}

/// What is told of an object of which the name is all that is known: whoever reads it finds it broken.
pub(crate) fn told_by_name(name: &ObjectName) -> Option<Arc<str>> {
    let version = if name.group.is_empty() { "v1".to_owned() } else { format!("{}/v1", name.group) };
    let metadata = serde_json::json!({"name": &*name.name, "namespace": name.namespace.as_deref()});
    let value = serde_json::json!({
        "apiVersion": version,
        "kind": &*name.kind,
        "metadata": metadata,
        "spec": {"action": "unknown"},
    });
    written(&value, &Keep::All)
}

fn written(value: &Value, keep: &Keep) -> Option<Arc<str>> {
    // A value that was read can be written.
    serde_json::to_string(&Kept(value, keep)).ok().map(Into::into)
}

/// What is kept of a value. Where it is not of the form that is looked for, all of it is.
#[derive(Debug, Clone, Copy)]
enum Keep {
    All,
    /// Of a mapping these fields.
    Fields(&'static [(&'static str, Keep)]),
    /// The same, and nothing of a mapping that has none of them.
    Some(&'static [(&'static str, Keep)]),
    /// Of a list this of each element.
    Each(&'static Keep),
    /// Of a Pod's conditions what says whether it is ready: that it has conditions at all does, too.
    Conditions,
}

impl Keep {
    /// Whether something is kept of a value.
    fn has_any_of(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Some(fields), Value::Object(map)) => fields.iter().any(|(name, _)| map.contains_key(*name)),
            _ => true,
        }
    }
}

use Keep::{All, Conditions, Each, Fields};

const NAME: (&str, Keep) = ("name", All);
const NAMES: [(&str, Keep); 2] = [NAME, ("namespace", All)];
const HEADER: [(&str, Keep); 2] = [("apiVersion", All), ("kind", All)];

const PRESENCE: Keep = Fields(&[HEADER[0], HEADER[1], ("metadata", Fields(&NAMES))]);

const LABELLED: (&str, Keep) = ("metadata", Fields(&[NAMES[0], NAMES[1], ("labels", All)]));

const NAMESPACE: Keep = Fields(&[HEADER[0], HEADER[1], LABELLED]);

const NODE: Keep = Fields(&[
    HEADER[0],
    HEADER[1],
    (
        "metadata",
        Fields(&[
            NAME,
            (
                "labels",
                Fields(&[
                    (REGION, All),
                    (ZONE, All),
                    (SUBZONE, All),
                    ("failure-domain.beta.kubernetes.io/region", All),
                    ("failure-domain.beta.kubernetes.io/zone", All),
                ]),
            ),
        ]),
    ),
]);

const SERVICE: Keep = Fields(&[
    HEADER[0],
    HEADER[1],
    (
        "metadata",
        Fields(&[NAMES[0], NAMES[1], ("labels", All), ("annotations", Fields(&[(TRAFFIC_DISTRIBUTION, All)]))]),
    ),
    ("spec", All),
]);

/// Istio's kinds, the Gateway API's, and the mesh configuration.
const RESOURCE: Keep = Fields(&[
    HEADER[0],
    HEADER[1],
    (
        "metadata",
        Fields(&[
            NAMES[0],
            NAMES[1],
            ("labels", All),
            ("annotations", Fields(&[("istio.io/dry-run", All), ("proxy.istio.io/config", All), (LOG_SAMPLING, All)])),
            ("creationTimestamp", All),
            ("generation", All),
        ]),
    ),
    ("spec", All),
    ("data", All),
]);

const ENDPOINT_SLICE: Keep = Fields(&[
    HEADER[0],
    HEADER[1],
    ("metadata", Fields(&[NAMES[0], NAMES[1], ("labels", Fields(&[(SERVICE_NAME, All)]))])),
    ("addressType", All),
    (
        "endpoints",
        Each(&Fields(&[
            ("addresses", All),
            ("conditions", Fields(&[("ready", All)])),
            ("targetRef", Fields(&[("kind", All), NAMES[0], NAMES[1]])),
            ("hints", Fields(&[("forZones", Each(&Fields(&[NAME]))), ("forNodes", Each(&Fields(&[NAME])))])),
        ])),
    ),
    ("ports", Each(&Fields(&[NAME, ("port", All), ("protocol", All)]))),
]);

const HOST_AND_PORT: Keep = Fields(&[("host", All), ("port", All)]);
const PROBE: Keep =
    Fields(&[("httpGet", HOST_AND_PORT), ("tcpSocket", HOST_AND_PORT), ("grpc", Fields(&[("port", All)]))]);
const HOOK: Keep = Fields(&[("httpGet", HOST_AND_PORT)]);
const CONTAINERS: Keep = Each(&Fields(&[
    NAME,
    ("ports", Each(&Fields(&[NAME, ("containerPort", All)]))),
    ("startupProbe", PROBE),
    ("livenessProbe", PROBE),
    ("readinessProbe", PROBE),
    ("lifecycle", Fields(&[("postStart", HOOK), ("preStop", HOOK)])),
]));

const POD: Keep = Fields(&[
    HEADER[0],
    HEADER[1],
    (
        "metadata",
        Fields(&[
            NAMES[0],
            NAMES[1],
            ("uid", All),
            ("labels", All),
            ("annotations", Keep::Some(&[("proxy.istio.io/config", All), (DNS_CAPTURE, All)])),
            ("ownerReferences", Each(&Fields(&[("kind", All), NAME, ("controller", All)]))),
        ]),
    ),
    (
        "spec",
        Fields(&[
            ("nodeName", All),
            ("serviceAccountName", All),
            ("hostNetwork", All),
            ("initContainers", CONTAINERS),
            ("containers", CONTAINERS),
        ]),
    ),
    ("status", Fields(&[("podIP", All), ("podIPs", All), ("phase", All), ("conditions", Conditions)])),
]);

/// A value without what is not kept of it.
struct Kept<'a>(&'a Value, &'a Keep);

impl Serialize for Kept<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.1, self.0) {
            (Fields(fields) | Keep::Some(fields), Value::Object(map)) => {
                let mut written = serializer.serialize_map(None)?;
                for (name, keep) in *fields {
                    if let Some(value) = map.get(*name).filter(|value| keep.has_any_of(value)) {
                        written.serialize_entry(name, &Kept(value, keep))?;
                    }
                }
                written.end()
            }
            (Each(keep), Value::Array(list)) => {
                let mut written = serializer.serialize_seq(Some(list.len()))?;
                for value in list {
                    written.serialize_element(&Kept(value, keep))?;
                }
                written.end()
            }
            (Conditions, Value::Array(list)) => {
                const CONDITION: Keep = Fields(&[("type", All), ("status", All)]);
                let ready = list.iter().filter(|condition| condition.get("type").is_some_and(|is| is == "Ready"));
                let mut kept: Vec<_> = ready.map(|condition| Kept(condition, &CONDITION)).collect();
                if kept.is_empty() {
                    kept.extend(list.first().map(|condition| Kept(condition, &CONDITION)));
                }
                kept.serialize(serializer)
            }
            (_, value) => value.serialize(serializer),
        }
    }
}
