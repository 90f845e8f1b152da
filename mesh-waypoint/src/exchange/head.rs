//! The head of a request: read with one meaning, or refused.

use std::{borrow::Cow, rc::Rc};

use http::{
    HeaderMap, HeaderValue, Method, Uri, Version as HttpVersion,
    header::{CONNECTION, EXPECT, HOST, SEC_WEBSOCKET_KEY, UPGRADE},
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::ext::Protocol;
use mesh_core::{
    Workload,
    l7::{RequestView, path::normalised},
    policy::request::Token,
};

use super::{authority::authority_of, framing, reply::Refusal, upgrade};
use crate::{inbound::Arrival, telemetry::BadInput, upstream::Version};

/// A request's head.
pub(super) struct Head {
    /// As it came, and as it is changed on its way.
    pub(super) parts: Parts,
    /// Whom it asks, as it is written.
    pub(super) authority: Authority,
    /// What it asks for there: the path in normal form, and the query.
    pub(super) target: PathAndQuery,
    host: String,
    port: u16,
    scheme: &'static str,
    /// Who sends it, and to what.
    pub(super) arrival: Rc<Arrival>,
    /// The token that was verified.
    pub(super) token: Option<Rc<Token>>,
}

impl Head {
    /// Reads a request of a tunnel.
    ///
    /// # Errors
    /// It has no reading, or more than one.
    pub(super) fn read(mut parts: Parts, arrival: &Rc<Arrival>) -> Result<Self, Refusal> {
        framing::check_request(&parts)?;
        let authority = authority_of(&parts, &arrival.target)?;
        check_expectation(&parts)?;
        normalise(&mut parts)?;
        let host = authority.host().to_ascii_lowercase();
        let target = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        Ok(Self {
            host,
            authority,
            target,
            parts,
            port: arrival.target.port(),
            scheme: arrival.target.scheme(),
            arrival: arrival.clone(),
            token: None,
        })
    }

    /// What a cookie says, by its name.
    pub(super) fn cookie(&self, name: &str) -> Option<String> {
        let cookies = self.header("cookie")?;
        let mut pairs = cookies.split([';', ',']).filter_map(|pair| pair.trim().split_once('='));
        pairs.find_map(|(known, value)| (known == name).then(|| value.to_owned()))
    }

    /// The head that goes to an endpoint by that version of HTTP, asking for that host.
    pub(super) fn for_upstream(&self, version: Version, authority: &Authority) -> Parts {
        let mut parts = http::Request::new(()).into_parts().0;
        parts.method = self.parts.method.clone();
        parts.headers = self.parts.headers.clone();
        let is_connect = parts.method == Method::CONNECT;
        let target = (!is_connect).then(|| self.target.clone());
        if version == Version::Http2
            && let Some(protocol) = upgrade::protocol(&self.parts.headers)
        {
            // RFC 8441, section 5.
            parts.method = Method::CONNECT;
            parts.extensions.insert(Protocol::from(protocol));
            [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY].iter().for_each(|name| drop(parts.headers.remove(name)));
        }
        addressed(parts, version, authority, target)
    }
}

/// A head for that host by that version of HTTP; CONNECT has no target.
pub(super) fn addressed(
    mut parts: Parts,
    version: Version,
    authority: &Authority,
    target: Option<PathAndQuery>,
) -> Parts {
    match version {
        Version::Http1 => {
            parts.version = HttpVersion::HTTP_11;
            if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
                parts.headers.insert(HOST, host);
            }
            parts.uri = target.map_or_else(|| authority_form(authority), Uri::from);
        }
        Version::Http2 => {
            parts.version = HttpVersion::HTTP_2;
            parts.headers.remove(HOST);
            let mut uri = http::uri::Parts::default();
            uri.authority = Some(authority.clone());
            if target.is_some() {
                uri.scheme = Some(Scheme::HTTP);
                uri.path_and_query = target;
            }
            parts.uri = Uri::from_parts(uri).unwrap_or_default();
        }
    }
    parts
}

/// There is one expectation (RFC 9110, section 10.1.1).
fn check_expectation(parts: &Parts) -> Result<(), Refusal> {
    let unknown = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if parts.version >= HttpVersion::HTTP_11 && parts.headers.get_all(EXPECT).iter().any(unknown) {
        return Err(Refusal::of_bad_input(417, "unknown expectation", BadInput::Expectation));
    }
    Ok(())
}

/// Writes the path in its normal form: what rules and policies see is what the endpoint gets.
fn normalise(parts: &mut Parts) -> Result<(), Refusal> {
    // CONNECT has no path, and `*` of OPTIONS is none.
    if parts.method == Method::CONNECT || (parts.method == Method::OPTIONS && parts.uri.path() == "*") {
        return Ok(());
    }
    let path = parts.uri.path();
    let normal = normalised(path).map_err(|error| Refusal::of_bad_input(400, error.to_string(), BadInput::Path))?;
    if *normal == *path {
        return Ok(());
    }
    let mut target = normal.into_owned();
    if let Some(query) = parts.uri.query() {
        target.push('?');
        target.push_str(query);
    }
    let malformed = |_| Refusal::of_bad_input(400, "malformed path", BadInput::Path);
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.path_and_query = Some(PathAndQuery::try_from(target).map_err(malformed)?);
    parts.uri = Uri::from_parts(uri).unwrap_or_default();
    Ok(())
}

fn authority_form(authority: &Authority) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.authority = Some(authority.clone());
    Uri::from_parts(parts).unwrap_or_default()
}

impl RequestView for Head {
    fn method(&self) -> &str {
        self.parts.method.as_str()
    }

    fn scheme(&self) -> &str {
        self.scheme
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn path(&self) -> &str {
        self.target.path()
    }

    fn query(&self) -> Option<&str> {
        self.target.query()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        joined(&self.parts.headers, name)
    }

    fn client(&self) -> Option<&Workload> {
        self.arrival.client.workload.as_deref()
    }

    fn claim(&self, names: &[Box<str>]) -> &[String] {
        self.token.as_deref().map_or(&[], |token| token.claim(names))
    }
}

/// All lines of a field, joined by commas. Octets that are no UTF-8 become replacement characters, which nothing is written with.
pub(super) fn joined<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter();
    let first = String::from_utf8_lossy(values.next()?.as_bytes());
    let mut rest = values.peekable();
    if rest.peek().is_none() {
        return Some(first);
    }
    let mut all = first.into_owned();
    for value in rest {
        all.push(',');
        all.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    Some(Cow::Owned(all))
}
