//! Programs beside the mesh that it asks or tells, by the names under which policies refer to them: Istio's
//! `extensionProviders` (istio.io, reference/config/istio.mesh.v1alpha1).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Protocol, Service};
use crate::policy::Patterns;
use crate::snapshot::Snapshot;

/// All providers, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Providers(BTreeMap<Arc<str>, Provider>);

/// What a provider does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// It decides on requests.
    Authorizer(Arc<Authorizer>),
    /// It takes lines of requests, and spans.
    Collector(Arc<OtlpCollector>),
}

/// A program that takes lines of requests, and spans, by OTLP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpCollector {
    /// Where it is.
    pub address: ProviderAddress,
    /// The path at which it is spoken to by HTTP, empty for the protocol's own; none for gRPC.
    pub http_path: Option<Arc<str>>,
    /// What its logs are called.
    pub log_name: Option<Arc<str>>,
}

/// Where a provider is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderAddress {
    /// The namespace that the host is looked for in; none for anywhere.
    pub namespace: Option<Arc<str>>,
    /// A Service's full host name, in lower case.
    pub host: Arc<str>,
    /// The Service's port.
    pub port: u16,
}

/// A program that decides on requests by Envoy's `ext_authz` protocol. What it changes of a request is there when the request
/// is routed, as with `clearRouteCache`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorizer {
    /// Where it is.
    pub address: ProviderAddress,
    /// How long its answer may take.
    pub timeout: Duration,
    /// Whether a request goes on when there is no answer.
    pub fail_open: bool,
    /// The status of a request that is refused since there is no answer.
    pub status_on_error: u16,
    /// How much of the request's body it is shown; none for nothing.
    pub body: Option<BodyInCheck>,
    /// How it is asked.
    pub asked_by: AskedBy,
}

/// How much of a body an authorizer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyInCheck {
    /// Bytes at most.
    pub max_bytes: usize,
    /// Whether it is shown the beginning of a longer one; otherwise such a request is refused with 413.
    pub allow_partial: bool,
    /// Whether gRPC carries it as bytes and not as text.
    pub as_bytes: bool,
}

/// How an authorizer is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedBy {
    /// By `envoy.service.auth.v3.Authorization/Check`.
    Grpc,
    /// By a request like the one that it decides on.
    Http(HttpCheck),
}

/// What an authorizer that is asked by HTTP is sent, and what of its answer counts. Names of fields are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpCheck {
    /// Before the request's path; empty or with a slash at its beginning.
    pub path_prefix: Box<str>,
    /// The request's fields that are sent along, beside host and authorization.
    pub request_headers: Patterns,
    /// Further fields, with their values.
    pub additional_headers: Vec<(Box<str>, Box<str>)>,
    /// Fields of the answer that a request that is allowed goes on with.
    pub to_upstream_on_allow: Patterns,
    /// Fields of the answer that the response to a request that is allowed has.
    pub to_downstream_on_allow: Patterns,
    /// Fields of the answer that a refusal has; none for all but a few of its connection's own.
    pub to_downstream_on_deny: Option<Patterns>,
}

impl Providers {
    /// The provider of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Provider> {
        self.0.get(name)
    }

    /// The authorizer of that name.
    #[must_use]
    pub fn authorizer(&self, name: &str) -> Option<&Arc<Authorizer>> {
        match self.get(name)? {
            Provider::Authorizer(authorizer) => Some(authorizer),
            Provider::Collector(_) => None,
        }
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Provider)> {
        self.0.iter()
    }
}

/// Of names and providers; of several of one name, the last counts.
impl FromIterator<(Arc<str>, Provider)> for Providers {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Provider)>>(providers: I) -> Self {
        Self(providers.into_iter().collect())
    }
}

impl Provider {
    /// Where it is found.
    #[must_use]
    pub fn address(&self) -> &ProviderAddress {
        match self {
            Self::Authorizer(authorizer) => &authorizer.address,
            Self::Collector(collector) => &collector.address,
        }
    }
}

impl ProviderAddress {
    /// The Service that it is, if there is one with that port.
    #[must_use]
    pub fn service<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Arc<Service>> {
        let service = snapshot.service_by_hostname(&self.host)?;
        let is_meant = self.namespace.as_deref().is_none_or(|namespace| namespace == &*service.namespace);
        let has_port = service.ports.iter().any(|port| port.port == self.port && port.protocol == Protocol::Tcp);
        (is_meant && has_port).then_some(service)
    }
}
