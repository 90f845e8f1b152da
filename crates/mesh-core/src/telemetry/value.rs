//! The value of a metric's label, as a Telemetry asks for it: a bounded part of CEL over what is known of a request.

use std::borrow::Cow;
use std::sync::Arc;

use super::filter::{Attributes, Filter, Number, Text};
use crate::model::Workload;
use crate::standard_labels::UNKNOWN;

/// Bytes of a value; clients choose what is in headers, and must not choose our memory.
pub const MAX_VALUE: usize = 256;

/// What a label is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// That.
    Literal(Arc<str>),
    /// A text of the request.
    Text(Text),
    /// A number of the request.
    Number(Number),
    /// What is known of one of both workloads.
    Peer(Peer, PeerAttribute),
    /// The first where the condition holds, else the second.
    If(Box<Filter>, Box<Self>, Box<Self>),
}

/// One of both sides of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Who asked.
    Source,
    /// Who answered.
    Destination,
}

/// What is known of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAttribute {
    /// The pod's name.
    Name,
    /// The pod's namespace.
    Namespace,
    /// The owner's name.
    Workload,
    /// The canonical service.
    Service,
    /// The canonical revision.
    Revision,
    /// The application.
    App,
    /// Its version.
    Version,
    /// The SPIFFE ID.
    Principal,
    /// One of the pod's labels.
    Label(Arc<str>),
}

impl PeerAttribute {
    /// As a workload has it.
    #[must_use]
    pub fn of<'a>(&self, workload: &'a Workload) -> Option<&'a str> {
        let text = match self {
            Self::Name => &*workload.name,
            Self::Namespace => &*workload.namespace,
            Self::Workload => &*workload.workload_name,
            Self::Service => &*workload.canonical_service,
            Self::Revision => &*workload.canonical_revision,
            Self::App => &*workload.app,
            Self::Version => &*workload.version,
            Self::Principal => workload.identity.as_str(),
            Self::Label(key) => workload.labels.get(key)?,
        };
        Some(text)
    }
}

impl Value {
    /// What it is for a request: at most [`MAX_VALUE`] bytes, and `unknown` where it is not known.
    #[must_use]
    pub fn of(&self, told: &impl Attributes) -> String {
        let text = self.find(told).unwrap_or(Cow::Borrowed(UNKNOWN));
        let end = (0..=MAX_VALUE.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        text[..end.unwrap_or(0)].to_owned()
    }

    fn find<'a>(&'a self, told: &'a impl Attributes) -> Option<Cow<'a, str>> {
        match self {
            Self::Literal(text) => Some(Cow::Borrowed(text)),
            Self::Text(text) => told.text(text),
            Self::Number(number) => Some(Cow::Owned(told.number(*number)?.to_string())),
            Self::Peer(peer, attribute) => told.peer(*peer, attribute).map(Cow::Borrowed),
            Self::If(condition, first, _) if condition.admits(told) => first.find(told),
            Self::If(_, _, second) => second.find(told),
        }
    }

    /// Adds the names of the request headers that it asks for.
    pub fn headers(&self, into: &mut Vec<Arc<str>>) {
        match self {
            Self::Text(Text::Header(name)) => into.push(name.clone()),
            Self::Literal(_) | Self::Text(_) | Self::Number(_) | Self::Peer(..) => {}
            Self::If(condition, first, second) => {
                condition.headers(into);
                first.headers(into);
                second.headers(into);
            }
        }
    }
}
