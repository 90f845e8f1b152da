//! Istio's own kinds, read strictly: a field that is not known is an error, since to leave out what somebody wrote
//! would widen access.

mod authorization_policy;
mod destination_rule;
mod duration;
mod envoy_filter;
mod gateway;
mod locality;
mod mesh_config;
mod peer_authentication;
mod policy_target;
mod proxy_config;
mod request_authentication;
mod request_rule;
mod rule;
#[cfg(feature = "schema")]
pub(crate) mod schema;
mod service_entry;
mod stand_in;
mod telemetry;
mod telemetry_metrics;
mod token_rule;
mod virtual_service;

use std::collections::BTreeMap;

use mesh_core::policy::Selector;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

pub use authorization_policy::AuthorizationPolicy;
pub use destination_rule::DestinationRule;
pub(crate) use duration::duration;
pub use envoy_filter::LimitSource;
pub(crate) use envoy_filter::read as read_envoy_filter;
pub use gateway::{Carries, Clients, IstioGateway, Server, ServerTls};
pub use mesh_config::MeshConfig;
pub(crate) use mesh_config::NAME as MESH_CONFIG;
pub use peer_authentication::PeerAuthentication;
pub(crate) use policy_target::TargetRef;
pub(crate) use proxy_config::ANNOTATION as PROXY_CONFIG;
pub use proxy_config::ProxyConfig;
pub use request_authentication::RequestAuthentication;
pub use service_entry::{EndpointAddress, EntryEndpoint, EntryPort, Location, ServiceEntry, WorkloadEntry};
pub(crate) use stand_in::{stand_in, stand_in_of_text};
pub(crate) use telemetry::SAMPLING as LOG_SAMPLING;
pub use telemetry::Telemetry;
pub(crate) use virtual_service::MESH;
pub use virtual_service::{ConnectionMatch, ConnectionRule, HttpRule, VirtualService};

use crate::code::Code;
use crate::finding::ObjectName;

/// What is wrong with an object, that makes it broken as a whole.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub(crate) code: Code,
    pub(crate) field: String,
    pub(crate) message: String,
}

impl Flaw {
    /// A field with a value that cannot be meant.
    pub(crate) fn value(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: Code::BadPolicyValue, field: field.into(), message: message.into() }
    }
}

/// What is worth a finding about an object that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// What it is about.
    pub code: Code,
    /// The field.
    pub field: String,
    /// What was found.
    pub message: String,
}

impl Remark {
    pub(crate) fn new(code: Code, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, field: field.into(), message: message.into() }
    }
}

/// Which of several objects is the oldest: by the API server's time of creation, and those without one last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age(bool, String);

impl Age {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        // All in UTC and of one width (metav1.Time), so that text sorts as time does.
        let created = metadata.creation_timestamp.clone().unwrap_or_default();
        Self(created.is_empty(), created)
    }

    pub(crate) fn unknown() -> Self {
        Self(true, String::new())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Resource<S> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub(crate) metadata: Metadata,
    #[serde(default = "Option::default")]
    pub(crate) spec: Option<S>,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

/// Of the metadata, what matters beyond the name.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    creation_timestamp: Option<String>,
    /// Counts the versions of the specification.
    pub(crate) generation: Option<i64>,
    annotations: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WorkloadSelector {
    /// Labels that a pod has to have, all of them.
    match_labels: Option<BTreeMap<String, String>>,
}

impl WorkloadSelector {
    /// The selector; none for all workloads.
    fn selector(self, field: &str) -> Result<Option<Selector>, Flaw> {
        let labels = self.match_labels.unwrap_or_default();
        for (key, value) in &labels {
            if key.is_empty() || key.contains('*') || value.contains('*') {
                let message =
                    format!("{key:?}: {value:?} selects nothing; labels are compared as they are, without '*'");
                return Err(Flaw::value(format!("{field}.matchLabels"), message));
            }
        }
        Ok(Selector::new(labels))
    }
}

fn selector(given: Option<WorkloadSelector>, field: &str) -> Result<Option<Selector>, Flaw> {
    given.map_or(Ok(None), |selector| selector.selector(field))
}

pub(crate) fn decode<S: DeserializeOwned>(value: &Value) -> Result<Resource<S>, Flaw> {
    deserialized(value)
}

/// Nearly all can be read; where something is wrong in one that cannot is looked for after that, which takes longer.
pub(crate) fn deserialized<T: DeserializeOwned>(value: &Value) -> Result<T, Flaw> {
    T::deserialize(value).or_else(|_| serde_path_to_error::deserialize(value)).map_err(
        |error: serde_path_to_error::Error<serde_json::Error>| Flaw {
            code: Code::WrongField,
            field: error.path().to_string(),
            message: error.inner().to_string(),
        },
    )
}

pub(crate) fn policy_name(name: &ObjectName) -> std::sync::Arc<mesh_core::PolicyName> {
    let namespace = name.namespace.as_deref().unwrap_or_default();
    mesh_core::PolicyName { namespace: namespace.into(), name: name.name.as_ref().into() }.into()
}

/// A field's name is a token (RFC 9110, section 5.1), and its value has no control characters.
pub(crate) fn check_header_field(name: &str, value: &str, field: &str) -> Result<(), Flaw> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(Flaw::value(
            field,
            format!("{name:?} is no header field's name; it can be no pseudo-header either"),
        ));
    }
    if value.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) {
        return Err(Flaw::value(field, format!("the value of {name} has control characters")));
    }
    Ok(())
}
