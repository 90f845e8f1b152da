//! What an authorizer is told of a request.

use std::net::SocketAddr;
use std::time::SystemTime;

use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, Method};
use bytes::Bytes;

/// A request, as an authorizer is told of it.
#[derive(Debug, Clone)]
pub struct Check<'a> {
    /// What logs call it.
    pub id: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The path in normal form, with the query.
    pub target: &'a PathAndQuery,
    /// Whom it asks, with the port where one is written.
    pub host: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// All header fields.
    pub headers: &'a HeaderMap,
    /// Bytes of its body, where they are known.
    pub size: Option<u64>,
    /// Whether it came by HTTP/2.
    pub is_http2: bool,
    /// When it came.
    pub time: SystemTime,
    /// Who sends it.
    pub source: Party<'a>,
    /// To whom.
    pub destination: Party<'a>,
    /// The server that a TLS client asked for.
    pub server_name: Option<&'a str>,
    /// What it is shown of the body.
    pub body: Option<Shown>,
}

/// One end of a request's connection.
#[derive(Debug, Clone)]
pub struct Party<'a> {
    /// Its address.
    pub address: SocketAddr,
    /// Its proven identity, as `spiffe://...`.
    pub principal: Option<&'a str>,
    /// The workload or Service, as telemetry calls it.
    pub service: &'a str,
}

/// A body, or its beginning.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The bytes.
    pub bytes: Bytes,
    /// Whether that is all.
    pub is_whole: bool,
    /// Whether gRPC carries them as bytes, and not as text.
    pub as_bytes: bool,
}

/// The field that says whether the body is only a part, which Envoy's authorizers look for.
pub(crate) const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";
