//! What becomes of a request that a rule is about.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::field_value::FieldValue;
use super::matching::{PathMatch, Regex, RequestMatch, TextMatch};
use super::resilience::{Fault, Percent, Retry, Timeouts};
use super::session::Session;

/// Where a rule is written, for logs, metrics, status and people.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleRef {
    /// The kind of object, such as `VirtualService`.
    pub kind: &'static str,
    /// The object's namespace.
    pub namespace: Arc<str>,
    /// The object's name.
    pub object: Arc<str>,
    /// Its place among the object's rules, from 0.
    pub index: usize,
    /// The rule's own name, where it has one.
    pub name: Option<Arc<str>>,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.object)?;
        match &self.name {
            Some(name) => write!(f, " rule {name}"),
            None => write!(f, " rule {}", self.index),
        }
    }
}

/// One rule of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where it is written.
    pub at: RuleRef,
    /// The requests that it is about: any of these; none for all requests.
    pub matches: Vec<RequestMatch>,
    /// What becomes of them.
    pub action: Action,
    /// Changes to the request's header.
    pub request_headers: HeaderEdits,
    /// Changes to the response's header.
    pub response_headers: HeaderEdits,
    /// What the request asks for at the upstream.
    pub rewrite: Rewrite,
    /// Who gets a copy, and loses the answer.
    pub mirrors: Vec<Mirror>,
    /// Faults to inject.
    pub fault: Fault,
    /// When and how a request is tried again; none for the default of whoever forwards it.
    pub retry: Option<Retry>,
    /// Limits of time.
    pub timeouts: Timeouts,
    /// Cross-origin requests.
    pub cors: Option<Cors>,
    /// Whether requests that belong together go to one endpoint.
    pub session: Option<Session>,
}

impl Rule {
    /// Where its requests, and copies of them, go.
    pub fn targets(&self) -> impl Iterator<Item = &BackendTarget> {
        let backends = match &self.action {
            Action::Forward(backends) => backends.as_slice(),
            Action::Redirect(_) | Action::Respond(_) => &[],
        };
        let mirrors = self.mirrors.iter().map(|mirror| &mirror.target);
        backends.iter().map(|backend| &backend.target).chain(mirrors)
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// One of the backends gets it, by their weights.
    Forward(Vec<Backend>),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// It is answered here.
    Respond(DirectResponse),
}

/// Somewhere that requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Where.
    pub target: BackendTarget,
    /// Its share, in relation to the others' weights.
    pub weight: u32,
    /// Changes to the request's header, after the rule's.
    pub request_headers: HeaderEdits,
    /// Changes to the response's header, before the rule's.
    pub response_headers: HeaderEdits,
    /// What the request asks for at this backend, instead of the rule's.
    pub rewrite: Rewrite,
}

/// What a backend names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BackendTarget {
    /// A port of a Service, or of a host of a ServiceEntry.
    Service {
        /// The full host name.
        hostname: Arc<str>,
        /// The Service's port; the one that the client asked for where none is named.
        port: Option<u16>,
        /// A subset of its endpoints, which a DestinationRule defines.
        subset: Option<Arc<str>>,
    },
    /// Nothing that is there, or nothing that may be named from here.
    Unresolved {
        /// The status that its share of requests is answered with.
        status: u16,
        /// Why.
        reason: Arc<str>,
    },
}

/// A copy of requests to somewhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Where.
    pub target: BackendTarget,
    /// How many of them.
    pub percent: Percent,
}

/// Changes to header fields: removed, then set, then added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Fields that are left out, in lower case.
    pub remove: Vec<Arc<str>>,
    /// Fields that have that value and no other; where that is empty for want of something to fill in, none at all.
    pub set: Vec<(Arc<str>, FieldValue)>,
    /// Fields with a further value; where that is empty for want of something to fill in, none.
    pub add: Vec<(Arc<str>, FieldValue)>,
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// What a request asks for, instead of what the client asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The host.
    pub authority: Option<Arc<str>>,
    /// The path.
    pub path: Option<PathRewrite>,
}

/// Another path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path.
    Full(Arc<str>),
    /// What the rule's match on the path found: a prefix, or all of it.
    Matched(Arc<str>),
    /// The beginning of the path by whole elements, as the Gateway API's `ReplacePrefixMatch`.
    MatchedElements(Arc<str>),
    /// All that the pattern finds in the path.
    Regex {
        /// The pattern.
        pattern: Regex,
        /// What stands in its place; `\1` is the first group.
        substitution: Arc<str>,
    },
}

impl PathRewrite {
    /// The path that is asked for, of a path that `matched` found.
    #[must_use]
    pub fn apply(&self, path: &str, matched: &PathMatch) -> String {
        let rest = || path.get(matched.matched_length(path)..).unwrap_or_default();
        let rewritten = match self {
            Self::Full(full) => full.to_string(),
            Self::Matched(replacement) => format!("{replacement}{}", rest()),
            Self::MatchedElements(replacement) => {
                let rest = rest().trim_start_matches('/');
                let beginning = replacement.trim_end_matches('/');
                if rest.is_empty() { replacement.to_string() } else { format!("{beginning}/{rest}") }
            }
            Self::Regex { pattern, substitution } => pattern.replace_all(path, substitution),
        };
        if rewritten.starts_with('/') { rewritten } else { format!("/{rewritten}") }
    }
}

/// An answer that sends the client elsewhere. What is not given stays as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    /// The host.
    pub host: Option<Arc<str>>,
    /// The port.
    pub port: RedirectPort,
    /// The path.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// The port that a redirect names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RedirectPort {
    /// That of the scheme where a scheme is given, else the one that was asked for.
    #[default]
    Derived,
    /// That of the scheme that the client is sent to.
    OfScheme,
    /// The one that was asked for, whatever the scheme.
    Requested,
    /// That one.
    Number(u16),
}

/// An answer that no upstream gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Option<Arc<[u8]>>,
}

/// Cross-origin requests, by the Fetch standard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// The origins that may.
    pub allow_origins: Vec<TextMatch>,
    /// The methods that they may use; `*` for all.
    pub allow_methods: Vec<Arc<str>>,
    /// The fields that they may send; `*` for all.
    pub allow_headers: Vec<Arc<str>>,
    /// The fields that they may read; `*` for all.
    pub expose_headers: Vec<Arc<str>>,
    /// How long a browser may remember the answer to a preflight request.
    pub max_age: Option<Duration>,
    /// Whether they may send credentials.
    pub allow_credentials: bool,
    /// Whether a preflight request of an origin that may not goes on to the upstream.
    pub forward_unmatched_preflights: bool,
}
