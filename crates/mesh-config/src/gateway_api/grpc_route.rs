//! GRPCRoute of gateway.networking.k8s.io.

use mesh_core::l7::{PathMatch, Regex, RequestMatch, Timeouts};
use serde::Deserialize;
use serde_json::Value;

use super::filters::RawFilter;
use super::http_route::{RawField, fields, regex};
use super::reference::RawBackendRef;
use super::route::{RawParts, RawRule, Route, Unread};
use super::session_persistence::RawSession;
use crate::finding::ObjectName;
use crate::istio::Flaw;

const KIND: &str = "GRPCRoute";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GrpcRouteRule {
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

pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<Route, Flaw> {
    Unread::<GrpcRouteRule>::of(value, name)?.read(KIND, GrpcRouteRule::parts)
}

impl RawRule for GrpcRouteRule {}

impl GrpcRouteRule {
    fn parts(self, field: &str) -> Result<RawParts, Flaw> {
        let mut matches = Vec::with_capacity(self.matches.len());
        for (index, raw) in self.matches.into_iter().enumerate() {
            matches.push(raw.read(&format!("{field}.matches[{index}]"))?);
        }
        Ok(RawParts {
            name: self.name,
            matches,
            filters: self.filters,
            backend_refs: self.backend_refs,
            timeouts: Timeouts::default(),
            retry: None,
            session: self.session_persistence,
        })
    }
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
