//! Which requests are logged: a bounded part of CEL (github.com/google/cel-spec) over Envoy's attributes, as it is evaluated for each request.

use std::borrow::Cow;
use std::sync::Arc;

use regex::Regex;

use super::value::{Peer, PeerAttribute};

/// A number that is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// `response.code`; absent where there was no answer.
    ResponseCode,
    /// `response.grpc_status`
    ResponseGrpcStatus,
    /// `request.size`: bytes of the body.
    RequestSize,
    /// `response.size`: bytes of the body.
    ResponseSize,
    /// `source.port`
    SourcePort,
    /// `destination.port`
    DestinationPort,
}

/// A text that is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// `request.method`
    Method,
    /// `request.path`: with the query.
    Path,
    /// `request.url_path`: without it.
    UrlPath,
    /// `request.query`
    Query,
    /// `request.host`
    Host,
    /// `request.scheme`
    Scheme,
    /// `request.protocol`
    Protocol,
    /// `request.useragent`
    UserAgent,
    /// `request.id`
    RequestId,
    /// `request.headers['...']`, in lower case.
    Header(Arc<str>),
    /// `source.address`: address and port.
    SourceAddress,
    /// `upstream.address`: address and port.
    UpstreamAddress,
    /// `connection.uri_san_peer_certificate`: the client's identity.
    PeerIdentity,
    /// `connection.requested_server_name`
    ServerName,
}

/// What is known of a request or connection that is over, by the names of Envoy's attributes.
pub trait Attributes {
    /// A number, where it is known.
    fn number(&self, what: Number) -> Option<i64>;
    /// A text, where it is known.
    fn text(&self, what: &Text) -> Option<Cow<'_, str>>;
    /// `connection.mtls`
    fn mtls(&self) -> bool;
    /// Whether nothing good came of it: of a request, that it had no answer, one from 400 on, or another status of gRPC than 0.
    fn failed(&self) -> bool {
        self.number(Number::ResponseCode).is_none_or(|code| code >= 400)
            || self.number(Number::ResponseGrpcStatus).is_some_and(|status| status != 0)
    }
    /// What is known of one of both workloads, where something is.
    fn peer(&self, _peer: Peer, _what: &PeerAttribute) -> Option<&str> {
        None
    }
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
}

/// What a text is asked.
#[derive(Debug, Clone)]
pub enum Test {
    /// `== '...'`
    Is(Arc<str>),
    /// `!= '...'`
    IsNot(Arc<str>),
    /// `.startsWith('...')`
    Begins(Arc<str>),
    /// `.endsWith('...')`
    Ends(Arc<str>),
    /// `.contains('...')`
    Contains(Arc<str>),
    /// `.matches('...')`: somewhere in it.
    Matches(Regex),
}

impl PartialEq for Test {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Is(a), Self::Is(b))
            | (Self::IsNot(a), Self::IsNot(b))
            | (Self::Begins(a), Self::Begins(b))
            | (Self::Ends(a), Self::Ends(b))
            | (Self::Contains(a), Self::Contains(b)) => a == b,
            (Self::Matches(a), Self::Matches(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl Eq for Test {}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// `true` or `false`
    Constant(bool),
    /// `!`
    Not(Box<Filter>),
    /// `&&`
    All(Vec<Filter>),
    /// `||`
    Any(Vec<Filter>),
    /// A number against a constant.
    Number(Number, Order, i64),
    /// A text.
    Text(Text, Test),
    /// `has(...)`, and `'...' in request.headers`
    HasText(Text),
    /// The same of a number.
    HasNumber(Number),
    /// `connection.mtls`
    Mtls,
}

impl Filter {
    /// Whether the request is logged. What asks for a value that is absent is an error in CEL, and an error is no.
    #[must_use]
    pub fn admits(&self, request: &impl Attributes) -> bool {
        self.value(request) == Some(true)
    }

    /// CEL's logic: an error beside what decides without it is none.
    fn value(&self, request: &impl Attributes) -> Option<bool> {
        match self {
            Self::Constant(value) => Some(*value),
            Self::Not(inner) => inner.value(request).map(|value| !value),
            Self::All(parts) => joined(parts, request, false),
            Self::Any(parts) => joined(parts, request, true),
            Self::Number(what, order, than) => request.number(*what).map(|value| order.holds(value, *than)),
            Self::Text(what, test) => request.text(what).map(|value| test.passes(&value)),
            Self::HasText(what) => Some(request.text(what).is_some()),
            Self::HasNumber(what) => Some(request.number(*what).is_some()),
            Self::Mtls => Some(request.mtls()),
        }
    }

    /// The request headers that it asks for.
    pub(super) fn headers(&self, into: &mut Vec<Arc<str>>) {
        match self {
            Self::Not(inner) => inner.headers(into),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.headers(into)),
            Self::Text(Text::Header(name), _) | Self::HasText(Text::Header(name)) => into.push(name.clone()),
            Self::Constant(_)
            | Self::Number(..)
            | Self::Text(..)
            | Self::HasText(_)
            | Self::HasNumber(_)
            | Self::Mtls => {}
        }
    }
}

/// `decisive` where one part is; the opposite where all are; else an error.
fn joined(parts: &[Filter], request: &impl Attributes, decisive: bool) -> Option<bool> {
    let mut all_known = true;
    for part in parts {
        match part.value(request) {
            Some(value) if value == decisive => return Some(decisive),
            Some(_) => {}
            None => all_known = false,
        }
    }
    all_known.then_some(!decisive)
}

impl Order {
    fn holds(self, value: i64, than: i64) -> bool {
        match self {
            Self::Equal => value == than,
            Self::NotEqual => value != than,
            Self::Less => value < than,
            Self::AtMost => value <= than,
            Self::More => value > than,
            Self::AtLeast => value >= than,
        }
    }
}

impl Test {
    fn passes(&self, value: &str) -> bool {
        match self {
            Self::Is(text) => *value == **text,
            Self::IsNot(text) => *value != **text,
            Self::Begins(text) => value.starts_with(&**text),
            Self::Ends(text) => value.ends_with(&**text),
            Self::Contains(text) => value.contains(&**text),
            Self::Matches(pattern) => pattern.is_match(value),
        }
    }
}
