//! What is not as HTTP has it, by who sent it and what was wrong with it.

use std::{
    error::Error as _,
    io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof},
};

use mesh_metrics::Registry;
use prometheus::{IntCounterVec, Opts};

/// Who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Who asks.
    Client,
    /// Who answers.
    Endpoint,
}

impl Sender {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Endpoint => "endpoint",
        }
    }
}

/// What was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadInput {
    /// The head of a message of HTTP/1 cannot be read.
    MalformedHead,
    /// A head of more octets or fields than are taken.
    HeadTooLarge,
    /// Whom a request asks: no host, several, or none that can be one.
    Host,
    /// What a request asks for: a path or another target that has no meaning.
    Path,
    /// Where the body ends has no meaning, or two.
    Framing,
    /// An expectation that is not known.
    Expectation,
    /// A body that is not what its head says, or no chunks where there should be some.
    MalformedBody,
    /// A protocol that nobody asked for.
    Upgrade,
    /// A connection that broke the rules of HTTP/2.
    Http2,
    /// A header of the PROXY protocol that is none, that is missing, or that nobody asked for.
    ProxyProtocol,
}

impl BadInput {
    const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedHead => "malformed_head",
            Self::HeadTooLarge => "head_too_large",
            Self::Host => "host",
            Self::Path => "path",
            Self::Framing => "framing",
            Self::Expectation => "expectation",
            Self::MalformedBody => "malformed_body",
            Self::Upgrade => "upgrade",
            Self::Http2 => "http2",
            Self::ProxyProtocol => "proxy_protocol",
        }
    }
}

/// Counts it: `mesh_waypoint_bad_input_total`.
pub(crate) struct BadInputs(IntCounterVec);

impl BadInputs {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let options = Opts::new("mesh_waypoint_bad_input_total", "Messages and connections that broke HTTP's rules");
        let counters = IntCounterVec::new(options, &["sender", "reason"])?;
        registry.register(Box::new(counters.clone()))?;
        Ok(Self(counters))
    }

    /// One more.
    pub(crate) fn count(&self, sender: Sender, what: BadInput) {
        self.0.with_label_values(&[sender.as_str(), what.as_str()]).inc();
    }

    /// A connection that ended so; nothing where that is no fault of what came.
    pub(crate) fn count_error(&self, sender: Sender, error: &hyper::Error) {
        let http2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        if http2.is_some_and(h2::Error::is_library) {
            self.count(sender, BadInput::Http2);
        } else if error.is_parse_too_large() {
            self.count(sender, BadInput::HeadTooLarge);
        } else if error.is_parse() {
            self.count(sender, BadInput::MalformedHead);
        }
    }
}

/// Whether a body that broke off was none: what broke it is in the innermost of the error's causes.
pub(crate) fn is_malformed(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| matches!(cause.kind(), InvalidInput | InvalidData | UnexpectedEof))
}
