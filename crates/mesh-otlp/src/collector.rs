//! Where spans and lines go.

use std::{fmt, str::FromStr};

use clap::ValueEnum;
use http::Uri;

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Protocol {
    /// OTLP over gRPC; collectors listen on 4317.
    Grpc,
    /// OTLP over HTTP with binary Protobuf; collectors listen on 4318.
    Http,
}

/// A text that names no collector.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// Not a URL.
    #[error("{url:?} is no URL: {source}; write it as http://collector.observability:4317")]
    Url {
        /// The text.
        url: String,
        /// Why.
        source: http::uri::InvalidUri,
    },
    /// Another scheme than http.
    #[error(
        "{url:?} must begin with http:// and name a host; collectors under TLS are reached through an agent on the node"
    )]
    Scheme {
        /// The text.
        url: String,
    },
}

/// A collector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Collector {
    pub(crate) url: Uri,
    pub(crate) protocol: Protocol,
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl Collector {
    /// Reads a URL such as `http://collector:4317`.
    ///
    /// # Errors
    /// It is no URL, or of another scheme than http.
    pub fn new(url: &str, protocol: Protocol) -> Result<Self, CollectorError> {
        let parsed = Uri::from_str(url).map_err(|source| CollectorError::Url { url: url.to_owned(), source })?;
        if parsed.scheme_str() != Some("http") || parsed.host().is_none() {
            return Err(CollectorError::Scheme { url: url.to_owned() });
        }
        Ok(Self { url: parsed, protocol })
    }

    /// The URL that OTLP over HTTP posts to: the signal's path is added unless another is given.
    pub(crate) fn url_of(&self, path: &str) -> String {
        match self.url.path() {
            "" | "/" => format!("{}{path}", self.url),
            _ => self.url.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_by_an_http_url() {
        for bad in ["", "collector", "https://collector:4317", "http://", "ftp://x", "collector:4317", "http://a b"] {
            assert!(Collector::new(bad, Protocol::Grpc).is_err(), "{bad}");
        }
        let traces = |url: &str| Collector::new(url, Protocol::Http).expect(url).url_of("v1/traces");
        assert_eq!(traces("http://collector:4318"), "http://collector:4318/v1/traces");
        assert_eq!(traces("http://collector:4318/"), "http://collector:4318/v1/traces");
        assert_eq!(traces("http://collector:4318/in/v1/traces"), "http://collector:4318/in/v1/traces");
    }
}
