//! GRPCRoute of gateway.networking.k8s.io.

use mesh_core::l7::{PathMatch, Regex, RequestMatch, Timeouts};
use serde::Deserialize;
use serde_json::Value;

use super::filters::RawFilter;
use super::http_route::{RawField, fields, regex};
use super::reference::{RawBackendRef, RawParentRef};
use super::route::{MAX_RULES, RawParts, Route, hostnames, hostnames_mean_nothing, no_default_gateways};
use super::session_persistence::RawSession;
use crate::finding::ObjectName;
use crate::istio::{Age, Flaw, decode, policy_name};

const KIND: &str = "GRPCRoute";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    parent_refs: Vec<RawParentRef>,
    hostnames: Option<Vec<String>>,
    #[serde(default)]
    rules: Vec<RawRule>,
    use_default_gateways: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawRule {
    name: Option<String>,
    #[serde(default)]
    matches: Vec<RawMatch>,
    #[serde(default)]
    filters: Vec<RawFilter>,
    #[serde(default)]
    backend_refs: Vec<RawBackendRef>,
    session_persistence: Option<RawSession>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMatch {
    method: Option<RawMethod>,
    #[serde(default)]
    headers: Vec<RawField>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMethod {
    #[serde(rename = "type")]
    kind: Option<RawKind>,
    service: Option<String>,
    method: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum RawKind {
    Exact,
    RegularExpression,
}

pub(crate) fn read(value: Value, name: &ObjectName) -> Result<Route, Flaw> {
    let resource = decode::<Spec>(value)?;
    let (age, generation) = (Age::of(&resource.metadata), resource.metadata.generation);
    let name = policy_name(name);
    let Some(spec) = resource.spec else {
        return Err(Flaw::value("spec.parentRefs", "the route attaches itself to nothing"));
    };
    if spec.rules.len() > MAX_RULES {
        return Err(Flaw::value("spec.rules", format!("{} rules are more than {MAX_RULES}", spec.rules.len())));
    }
    let mut remarks: Vec<_> = no_default_gateways(spec.use_default_gateways.as_ref()).into_iter().collect();
    let mut rules = Vec::with_capacity(spec.rules.len());
    for (index, raw) in spec.rules.into_iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        let mut matches = Vec::with_capacity(raw.matches.len());
        for (place, raw) in raw.matches.into_iter().enumerate() {
            matches.push(raw.read(&format!("{field}.matches[{place}]"))?);
        }
        let parts = RawParts {
            name: raw.name,
            matches,
            filters: raw.filters,
            backend_refs: raw.backend_refs,
            timeouts: Timeouts::default(),
            retry: None,
            session: raw.session_persistence,
        };
        rules.push(parts.read(KIND, &name, index, &mut remarks)?);
    }
    let parents: Vec<_> = spec.parent_refs.into_iter().map(|parent| parent.read(&name.namespace)).collect();
    let hostnames = hostnames(spec.hostnames)?;
    remarks.extend(hostnames_mean_nothing(&parents, &hostnames));
    Ok(Route { kind: KIND, name, parents, hostnames, rules, age, generation, remarks })
}

impl RawMatch {
    /// A call is a request for `/SERVICE/METHOD` (gRPC over HTTP/2).
    fn read(self, field: &str) -> Result<RequestMatch, Flaw> {
        let path = match self.method {
            None => PathMatch::Any,
            Some(method) => method.read(&format!("{field}.method"))?,
        };
        let headers = fields(self.headers, &format!("{field}.headers"), true)?;
        Ok(RequestMatch { path, headers, ..RequestMatch::default() })
    }
}

impl RawMethod {
    fn read(self, field: &str) -> Result<PathMatch, Flaw> {
        let any = || "[^/]+".to_owned();
        Ok(match (self.kind.unwrap_or(RawKind::Exact), self.service, self.method) {
            (_, None, None) => return Err(Flaw::value(field, "write service, method or both")),
            (RawKind::Exact, Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}").into()),
            (RawKind::Exact, Some(service), None) => PathMatch::ElementPrefix(format!("/{service}").into()),
            (RawKind::Exact, None, Some(method)) => {
                PathMatch::Regex(regex(&format!("/[^/]+/{}", Regex::escaped(&method)), field)?)
            }
            (RawKind::RegularExpression, service, method) => {
                let source = format!("/(?:{})/(?:{})", service.unwrap_or_else(any), method.unwrap_or_else(any));
                PathMatch::Regex(regex(&source, field)?)
            }
        })
    }
}
