//! A request that nobody sends.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use crate::l7::RequestView;
use crate::l7::path::{PathError, normalised};
use crate::l7::topology::forwarded_client;
use crate::model::Workload;
use crate::policy::request::Token;

/// The head of a request that is asked about, as a waypoint or gateway would read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imagined {
    /// The method.
    pub method: String,
    /// The host that it names, in lower case and without its port.
    pub host: String,
    /// The path in normal form.
    pub path: String,
    /// The query, without its question mark.
    pub query: Option<String>,
    /// Header fields, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// Whether the client begins with TLS.
    pub tls: bool,
    /// The host of its URL, which a client of TLS asks for.
    pub(super) server: String,
    /// Whether the client speaks https, here or to a proxy before that is believed.
    pub(super) https: bool,
    pub(super) port: u16,
    pub(super) client: Option<Arc<Workload>>,
    pub(super) token: Option<Token>,
}

impl Imagined {
    /// A request of that method for a path and query of a host. A field named `host` is the host that it names instead.
    ///
    /// # Errors
    /// The path has no reading, and a waypoint answers with 400.
    pub fn new(
        method: &str,
        host: &str,
        (path, query): (&str, Option<&str>),
        headers: Vec<(String, String)>,
    ) -> Result<Self, PathError> {
        let mut headers: Vec<_> =
            headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let named = headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.clone());
        // Who the client is says its certificate, and never the client.
        headers.retain(|(name, _)| name != "host" && name != "x-forwarded-client-cert");
        let server = host.trim_end_matches('.').to_ascii_lowercase();
        let host = named.as_deref().map_or(host, without_port);
        Ok(Self {
            server,
            method: method.to_owned(),
            host: host.trim_end_matches('.').to_ascii_lowercase(),
            path: normalised(if path.is_empty() { "/" } else { path })?.into_owned(),
            query: query.map(str::to_owned),
            headers,
            ..Self::default()
        })
    }
}

impl Imagined {
    /// The client that it was sent on for by so many proxies that are believed, who say the scheme as well.
    pub(super) fn by_proxies(&mut self, trusted: u32) -> Option<IpAddr> {
        self.https = self.tls;
        if trusted == 0 {
            return None;
        }
        let scheme = self.headers.iter().find(|(name, _)| name == "x-forwarded-proto");
        match scheme.map(|(_, value)| value.as_str()) {
            Some("https") => self.https = true,
            Some("http") => self.https = false,
            _ => {}
        }
        let lines = self.headers.iter().filter(|(name, _)| name == "x-forwarded-for").map(|(_, value)| value.as_str());
        forwarded_client(lines, trusted)
    }
}

/// A host without its port.
fn without_port(authority: &str) -> &str {
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { authority }
}

impl RequestView for Imagined {
    fn method(&self) -> &str {
        &self.method
    }

    fn scheme(&self) -> &str {
        if self.https { "https" } else { "http" }
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let first = values.next()?;
        Some(values.fold(Cow::Borrowed(first), |all, value| Cow::Owned(format!("{all},{value}"))))
    }

    fn client(&self) -> Option<&Workload> {
        self.client.as_deref()
    }

    fn claim(&self, names: &[Box<str>]) -> &[String] {
        self.token.as_ref().map_or(&[], |token| token.claim(names))
    }
}
