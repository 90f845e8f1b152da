//! EnvoyFilter of networking.istio.io, as far as it sets up local rate limits in the form that Istio's own pages have. There is
//! no Envoy here: every other patch is a remark.

mod local_rate_limit;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::policy::Selector;
use mesh_core::rate_limit::{LimitRef, LimitScope, LimitTarget, Only, RateLimit, RateLimitPolicy};
use mesh_core::telemetry::Side;
use serde::Deserialize;
use serde_json::Value;

use super::policy_target::{TargetRef, targets};
use super::{Age, Flaw, Remark, decode, policy_name};
use crate::code::Code;
use crate::finding::ObjectName;
use crate::own::MAX_LIMITS;
use local_rate_limit::{FILTER, RawConfig};

const KIND: &str = "EnvoyFilter";

/// An object that limits requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitSource {
    /// What is in force.
    pub policy: Arc<RateLimitPolicy>,
    /// When it was made.
    pub age: Age,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Spec {
    /// The workloads that it is for: a gateway's pods, or all pods behind a Service that has a waypoint.
    workload_selector: Option<RawSelector>,
    /// The Gateways or Services that it is for.
    target_refs: Option<Vec<TargetRef>>,
    /// The patches.
    config_patches: Option<Vec<RawPatch>>,
    /// Not honoured: patches do not build on one another here.
    priority: Option<i32>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawSelector {
    /// Labels that a pod has to have, all of them.
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct RawPatch {
    /// HTTP_FILTER, VIRTUAL_HOST or HTTP_ROUTE; no other is honoured.
    apply_to: Option<String>,
    /// Where it is for.
    #[serde(rename = "match")]
    only: Option<Value>,
    /// What it puts there.
    patch: Option<Value>,
}

/// What a patch is applied to, the nearest to a request first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ApplyTo {
    Route,
    VirtualHost,
    Filter,
}

pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<LimitSource, Flaw> {
    let resource = decode::<Spec>(value)?;
    let age = Age::of(&resource.metadata);
    let spec = resource.spec.unwrap_or_default();
    let name = policy_name(name);
    let mut remarks = Vec::new();
    if spec.priority.is_some_and(|priority| priority != 0) {
        remarks.push(Remark::new(Code::FieldNotHonoured, "spec.priority", "limits do not replace one another"));
    }
    let labels = spec.workload_selector.and_then(|selector| selector.labels).unwrap_or_default();
    let selector = Selector::new(labels);
    let given = spec.target_refs.unwrap_or_default();
    let scope = match (given.is_empty(), selector) {
        (false, Some(_)) => {
            return Err(Flaw::value("spec.targetRefs", "it has a workloadSelector or targetRefs, not both"));
        }
        (false, None) => {
            LimitScope::Targets(targets(given, &name.namespace)?.into_iter().map(LimitTarget::Place).collect())
        }
        (true, Some(selector)) => LimitScope::Workloads(selector),
        (true, None) => LimitScope::Namespace,
    };
    let mut read = Vec::new();
    for (index, patch) in spec.config_patches.unwrap_or_default().into_iter().enumerate() {
        let field = format!("spec.configPatches[{index}]");
        let at = LimitRef { kind: KIND, object: Arc::clone(&name), index };
        match patch.read(at, &field, &mut remarks) {
            Ok(limit) if read.len() < MAX_LIMITS => read.extend(limit),
            Ok(_) => remarks.push(Remark::new(Code::FieldNotHonoured, field, format!("more than {MAX_LIMITS} limits"))),
            Err(flaw) => remarks.push(Remark::new(Code::FieldNotHonoured, flaw.field, flaw.message)),
        }
    }
    read.sort_by_key(|(apply_to, _)| *apply_to);
    let limits = read.into_iter().map(|(_, limit)| Arc::new(limit)).collect();
    let policy = Arc::new(RateLimitPolicy { name, scope, limits, first_only: true });
    Ok(LimitSource { policy, age, remarks })
}

fn text<'a>(value: Option<&'a Value>, pointer: &str) -> Option<&'a str> {
    value?.pointer(pointer)?.as_str()
}

impl RawPatch {
    /// The limit that it sets, if it sets one.
    fn read(self, at: LimitRef, field: &str, remarks: &mut Vec<Remark>) -> Result<Option<(ApplyTo, RateLimit)>, Flaw> {
        let not_ours = |what: &str| {
            let message = format!("{what}: of EnvoyFilters, local rate limits are honoured and nothing else");
            Flaw::value(field, message)
        };
        let (only, patch) = (self.only.as_ref(), self.patch.as_ref());
        let apply_to = match self.apply_to.as_deref() {
            Some("HTTP_FILTER") => ApplyTo::Filter,
            Some("VIRTUAL_HOST") => ApplyTo::VirtualHost,
            Some("HTTP_ROUTE") => ApplyTo::Route,
            other => return Err(not_ours(&format!("applyTo {}", other.unwrap_or("nothing")))),
        };
        let config = match apply_to {
            ApplyTo::Filter if text(patch, "/value/name") == Some(FILTER) => "/value/typed_config".to_owned(),
            ApplyTo::Filter => {
                return Err(not_ours(&format!("filter {:?}", text(patch, "/value/name").unwrap_or_default())));
            }
            ApplyTo::Route | ApplyTo::VirtualHost => format!("/value/typed_per_filter_config/{FILTER}"),
        };
        let operation = text(patch, "/operation").unwrap_or_default();
        let adds = matches!(operation, "INSERT_BEFORE" | "INSERT_FIRST" | "INSERT_AFTER" | "ADD" | "MERGE" | "REPLACE");
        if !adds {
            return Err(not_ours(&format!("operation {operation:?}")));
        }
        let whole = patch.and_then(|patch| patch.pointer(&config)).ok_or_else(|| not_ours("the patch"))?;
        let (only, side) = place(only, field, remarks)?;
        let config = RawConfig::read(whole, &format!("{field}.patch.value"), remarks)?;
        let Some(config) = config else {
            if apply_to != ApplyTo::Filter {
                return Err(Flaw::value(
                    format!("{field}.patch.value"),
                    "it has no token_bucket, and so limits nothing",
                ));
            }
            // The filter by itself, for which hosts and routes have settings.
            return Ok(None);
        };
        Ok(Some((apply_to, config.limit(at, side, only, &format!("{field}.patch.value"), remarks)?)))
    }
}

/// At which proxies, and of which requests.
fn place(only: Option<&Value>, field: &str, remarks: &mut Vec<Remark>) -> Result<(Only, Option<Side>), Flaw> {
    let side = match text(only, "/context") {
        None | Some("ANY") => None,
        Some("GATEWAY") => Some(Side::Client),
        // What a sidecar does for what comes to its pod, the Service's waypoint does here.
        Some("SIDECAR_INBOUND" | "WAYPOINT") => Some(Side::Server),
        Some(other) => {
            let message = format!("{other}: limits are kept by gateways and by the waypoint of who is asked");
            return Err(Flaw::value(format!("{field}.match.context"), message));
        }
    };
    if only.is_some_and(|only| only.get("proxy").is_some()) {
        let message = "it is in force at every version of the proxy";
        remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.match.proxy"), message));
    }
    let mut requests = Only::default();
    let number = |pointer: &str| {
        let number = only?.pointer(pointer)?.as_u64()?;
        u16::try_from(number).ok().filter(|port| *port > 0)
    };
    requests.port = number("/routeConfiguration/portNumber")
        .or_else(|| number("/listener/portNumber"))
        .or_else(|| number("/waypoint/portNumber"));
    let route = text(only, "/routeConfiguration/vhost/route/name").or_else(|| text(only, "/waypoint/route/name"));
    requests.rule = route.map(Into::into);
    if let Some(host) = text(only, "/routeConfiguration/vhost/name") {
        virtual_host(host, &mut requests)
            .ok_or_else(|| Flaw::value(format!("{field}.match.routeConfiguration.vhost.name"), UNKNOWN_HOST))?;
    }
    for unknown in ["/routeConfiguration/name", "/routeConfiguration/gateway", "/listener/name", "/cluster"] {
        if only.is_some_and(|only| only.pointer(unknown).is_some()) {
            let field = format!("{field}.match{}", unknown.replace('/', "."));
            return Err(Flaw::value(
                field,
                "nothing here has such a name; without it the limit would be on more requests",
            ));
        }
    }
    Ok((requests, side))
}

const UNKNOWN_HOST: &str =
    "Istio's names of virtual hosts are HOST:PORT at gateways and waypoints, and inbound|http|PORT";

/// Reads `inbound|http|8080` and `shop.example.com:80`.
fn virtual_host(name: &str, only: &mut Only) -> Option<()> {
    let (host, port) = match name.strip_prefix("inbound|http|") {
        Some(port) => (None, port),
        None => {
            let (host, port) = name.rsplit_once(':')?;
            (Some(host), port)
        }
    };
    only.port = Some(port.parse().ok().filter(|port| *port > 0)?);
    if let Some(host) = host.filter(|host| *host != "*") {
        if host.contains('*') {
            return None;
        }
        only.host = Some(host.to_ascii_lowercase().into());
    }
    Some(())
}
