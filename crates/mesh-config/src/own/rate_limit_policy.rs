//! RateLimitPolicy of policy.mesh.dev: how many requests may pass, by what they are and by whom they are sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::PolicyName;
use mesh_core::l7::{HeaderEdits, Percent};
use mesh_core::rate_limit::{
    LimitAnswer, LimitKey, LimitRef, LimitScope, LimitTarget, Only, RateLimit, RateLimitPolicy, TokenBucket,
};
use serde::Deserialize;
use serde_json::Value;

use crate::finding::ObjectName;
use crate::gateway_api::RawMatch;
use crate::istio::{Age, Flaw, LimitSource, TargetRef, check_header_field, decode, duration, policy_name};

const KIND: &str = "RateLimitPolicy";
/// Most limits of one object: each is looked at for each request that it may be about.
pub(crate) const MAX_LIMITS: usize = 64;

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Spec {
    /// What it is attached to, in its own namespace: Service, ServiceEntry, Gateway, HTTPRoute or GRPCRoute; a GatewayClass
    /// from the root namespace.
    target_refs: Vec<RawTarget>,
    /// The limits. A request has to find a token in each that is about it.
    limits: Vec<RawLimit>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawTarget {
    /// API group of what it is attached to; empty for a Service.
    group: Option<String>,
    /// Service, ServiceEntry, Gateway, GatewayClass, HTTPRoute or GRPCRoute.
    kind: String,
    /// Its name.
    name: String,
    /// Of a route, the rule of that name; without it, all of them.
    section_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawLimit {
    /// The requests that it is about, any of these, as an HTTPRoute's rule has them; without it, all.
    matches: Option<Vec<RawMatch>>,
    /// Who has a bucket of their own; without it, all share one.
    key: Option<RawKey>,
    /// How many requests may pass in each interval.
    requests: u32,
    /// The interval, such as 1s or 1m.
    interval: String,
    /// How many may pass at once after a pause; as many as `requests` without it.
    burst: Option<u32>,
    /// Of those over the limit, how many percent are refused; all without it. With 0 they are counted alone.
    enforced_percent: Option<f64>,
    /// What who is refused is told.
    response: Option<RawResponse>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawKey {
    /// Each value of the request header of that name.
    header: Option<String>,
    /// Each client, told apart by this.
    source: Option<Source>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum Source {
    Principal,
    Namespace,
    Address,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawResponse {
    /// HTTP's status, from 400 to 599; 429 without it.
    status: Option<u16>,
    /// Fields of the answer's header.
    headers: Option<BTreeMap<String, String>>,
}

pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<LimitSource, Flaw> {
    let resource = decode::<Spec>(value)?;
    let age = Age::of(&resource.metadata);
    let name = policy_name(name);
    let missing = || Flaw::value("spec", "it limits nothing");
    let Spec { target_refs, limits: raw } = resource.spec.ok_or_else(missing)?;
    if target_refs.is_empty() {
        return Err(Flaw::value("spec.targetRefs", "it is attached to nothing"));
    }
    if raw.len() > MAX_LIMITS {
        return Err(Flaw::value("spec.limits", format!("{} limits are more than {MAX_LIMITS}", raw.len())));
    }
    let numbered = target_refs.into_iter().enumerate();
    let targets = numbered.map(|(index, target)| target.read(&format!("spec.targetRefs[{index}]"), &name));
    let scope = LimitScope::Targets(targets.collect::<Result<_, _>>()?);
    let mut limits = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let at = LimitRef { kind: KIND, object: Arc::clone(&name), index };
        limits.push(Arc::new(raw.read(at, &format!("spec.limits[{index}]"))?));
    }
    let policy = Arc::new(RateLimitPolicy { name, scope, limits, first_only: false });
    Ok(LimitSource { policy, age, remarks: Vec::new() })
}

impl RawTarget {
    fn read(self, field: &str, own: &Arc<PolicyName>) -> Result<LimitTarget, Flaw> {
        let kind = match (self.group.as_deref().unwrap_or_default(), self.kind.as_str()) {
            ("gateway.networking.k8s.io", "HTTPRoute") => "HTTPRoute",
            ("gateway.networking.k8s.io", "GRPCRoute") => "GRPCRoute",
            _ if self.section_name.is_some() => {
                let message = "only a route's rules are told apart; a Gateway is limited as a whole";
                return Err(Flaw::value(format!("{field}.sectionName"), message));
            }
            _ => {
                let target = TargetRef::new(self.group, self.kind, self.name);
                return Ok(LimitTarget::Place(target.read(field, &own.namespace)?));
            }
        };
        let name = PolicyName { namespace: Arc::clone(&own.namespace), name: self.name.into() };
        Ok(LimitTarget::Route { kind, name: Arc::new(name), rule: self.section_name.map(Into::into) })
    }
}

impl RawLimit {
    fn read(self, at: LimitRef, field: &str) -> Result<RateLimit, Flaw> {
        let mut matches = Vec::new();
        for (index, raw) in self.matches.unwrap_or_default().into_iter().enumerate() {
            matches.push(raw.read(&format!("{field}.matches[{index}]"))?);
        }
        let interval = duration(&self.interval, format!("{field}.interval"))?;
        let bucket = TokenBucket::new(self.burst.unwrap_or(self.requests), self.requests, interval);
        let percent = self.enforced_percent.map(|percent| {
            let wrong = || Flaw::value(format!("{field}.enforcedPercent"), "it is not from 0 to 100");
            Percent::new(percent).ok_or_else(wrong)
        });
        Ok(RateLimit {
            at,
            side: None,
            only: Only { matches, ..Only::default() },
            enabled: Percent::ALL,
            enforced: percent.transpose()?.unwrap_or(Percent::ALL),
            key: self.key.map_or(Ok(LimitKey::Everybody), |key| key.read(&format!("{field}.key")))?,
            bucket: bucket.map_err(|error| Flaw::value(field, error.to_string()))?,
            answer: self.response.unwrap_or_default().read(&format!("{field}.response"))?,
        })
    }
}

impl RawKey {
    fn read(self, field: &str) -> Result<LimitKey, Flaw> {
        match (self.header, self.source) {
            (Some(name), None) => {
                check_header_field(&name, "", &format!("{field}.header"))?;
                Ok(LimitKey::Header(name.to_ascii_lowercase().into()))
            }
            (None, Some(Source::Principal)) => Ok(LimitKey::Principal),
            (None, Some(Source::Namespace)) => Ok(LimitKey::Namespace),
            (None, Some(Source::Address)) => Ok(LimitKey::Address),
            _ => Err(Flaw::value(field, "a key is one of header and source")),
        }
    }
}

impl RawResponse {
    fn read(self, field: &str) -> Result<LimitAnswer, Flaw> {
        let status = self.status.unwrap_or(LimitAnswer::TOO_MANY_REQUESTS);
        if !(400..=599).contains(&status) {
            return Err(Flaw::value(format!("{field}.status"), format!("{status} is not from 400 to 599")));
        }
        let mut headers = HeaderEdits::default();
        for (name, value) in self.headers.unwrap_or_default() {
            check_header_field(&name, &value, &format!("{field}.headers"))?;
            headers.set.push((name.to_ascii_lowercase().into(), value.into()));
        }
        Ok(LimitAnswer { status, grpc: LimitAnswer::UNAVAILABLE, headers })
    }
}
