//! Which requests a rule is about.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::RequestView;
use crate::model::Workload;
use crate::policy::Selector;

/// How large a compiled regular expression may become; larger ones are refused where they are read.
const MAX_COMPILED_PATTERN: usize = 1 << 20;

/// A regular expression that a whole text has to match. It takes linear time, whatever the text.
#[derive(Debug, Clone)]
pub struct Regex {
    source: Arc<str>,
    compiled: regex::Regex,
}

/// Why a text is no regular expression that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_text:?} is no regular expression that can be used: {problem}")]
pub struct RegexError {
    source_text: String,
    problem: String,
}

impl Regex {
    /// Compiles `source`, in the syntax of RE2, which Istio and the Gateway API name.
    ///
    /// # Errors
    /// When it is malformed, or becomes too large.
    pub fn new(source: &str) -> Result<Self, RegexError> {
        Self::compile(source, &format!("^(?:{source})$"))
    }

    /// A pattern that matches the text and nothing else.
    #[must_use]
    pub fn escaped(text: &str) -> String {
        regex::escape(text)
    }

    /// Compiles `source` to be found anywhere in a text.
    ///
    /// # Errors
    /// When it is malformed, or becomes too large.
    pub fn anywhere(source: &str) -> Result<Self, RegexError> {
        Self::compile(source, source)
    }

    fn compile(source: &str, whole: &str) -> Result<Self, RegexError> {
        let compiled = regex::RegexBuilder::new(whole).size_limit(MAX_COMPILED_PATTERN).build();
        match compiled {
            Ok(compiled) => Ok(Self { source: source.into(), compiled }),
            Err(error) => {
                // The library draws the place over several lines; the last says what is wrong.
                let text = error.to_string();
                let problem = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                Err(RegexError { source_text: source.to_owned(), problem })
            }
        }
    }

    /// Whether the text is matched.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }

    /// The text with each match replaced; `\1` in `substitution` stands for the first group (RE2's notation).
    #[must_use]
    pub fn replace_all(&self, text: &str, substitution: &str) -> String {
        let replace = |groups: &regex::Captures<'_>| expanded(substitution, groups);
        self.compiled.replace_all(text, replace).into_owned()
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

/// Fills the groups into a substitution.
fn expanded(substitution: &str, groups: &regex::Captures<'_>) -> String {
    let mut text = String::with_capacity(substitution.len());
    let mut characters = substitution.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some(digit) if digit.is_ascii_digit() => {
                let group = digit.to_digit(10).and_then(|index| groups.get(index as usize));
                text.push_str(group.map_or("", |group| group.as_str()));
            }
            Some(other) => text.push(other),
            None => text.push('\\'),
        }
    }
    text
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.compiled.as_str() == other.compiled.as_str()
    }
}

impl Eq for Regex {}

impl Hash for Regex {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
    }
}

/// A match on one text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TextMatch {
    /// The whole text.
    Exact(Arc<str>),
    /// Its beginning.
    Prefix(Arc<str>),
    /// The whole text, by a pattern.
    Regex(Regex),
    /// Any text.
    Present,
}

impl TextMatch {
    /// Whether the text is matched.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *text,
            Self::Prefix(beginning) => text.starts_with(&**beginning),
            Self::Regex(regex) => regex.matches(text),
            Self::Present => true,
        }
    }
}

/// A match on one header field or parameter of the query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldMatch {
    /// The name; a header's in lower case.
    pub name: Arc<str>,
    /// The names that lead to a claim, where it is about one of the verified token's instead of a field.
    pub claim: Option<Box<[Box<str>]>>,
    /// What its value has to be.
    pub value: TextMatch,
}

/// A match on the path, without its query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Every path.
    Any,
    /// That path and no other.
    Exact(Arc<str>),
    /// What begins so, by whole elements: `/cart` is about `/cart` and `/cart/items`, and not about `/carts`. It ends
    /// in no slash, other than `/` itself.
    ElementPrefix(Arc<str>),
    /// What begins so, octet by octet, as Istio's `uri.prefix`.
    Prefix(Arc<str>),
    /// The whole path, by a pattern.
    Regex(Regex),
    /// As [`PathMatch::Exact`], whatever the case of ASCII letters.
    ExactIgnoringCase(Arc<str>),
    /// As [`PathMatch::Prefix`], whatever the case of ASCII letters.
    PrefixIgnoringCase(Arc<str>),
}

impl PathMatch {
    /// Whether the path is matched.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *path,
            Self::ElementPrefix(prefix) => begins_by_elements(path, prefix),
            Self::Prefix(prefix) => path.starts_with(&**prefix),
            Self::Regex(regex) => regex.matches(path),
            Self::ExactIgnoringCase(exact) => exact.eq_ignore_ascii_case(path),
            Self::PrefixIgnoringCase(prefix) => {
                let beginning = path.as_bytes().get(..prefix.len());
                beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(prefix.as_bytes()))
            }
        }
    }

    /// The length of what it matches at the beginning of a path, where that is known; all of it for the others.
    pub(super) fn matched_length(&self, path: &str) -> usize {
        match self {
            Self::ElementPrefix(prefix) if **prefix == *"/" => 0,
            Self::ElementPrefix(prefix) | Self::Prefix(prefix) | Self::PrefixIgnoringCase(prefix) => prefix.len(),
            // Envoy: what is said of no path is said of the prefix `/`.
            Self::Any => path.len().min(1),
            _ => path.len(),
        }
    }
}

fn begins_by_elements(path: &str, prefix: &str) -> bool {
    if prefix == "/" {
        return true;
    }
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Who sends a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ClientMatch {
    /// The namespace of the client.
    pub namespace: Option<Arc<str>>,
    /// Labels that it has.
    pub labels: Option<Selector>,
}

/// A match on a request: all that is given has to hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestMatch {
    /// The path.
    pub path: PathMatch,
    /// The method.
    pub method: Option<TextMatch>,
    /// The scheme.
    pub scheme: Option<TextMatch>,
    /// The host in lower case, without its port, or with the port that the client connected to.
    pub host: Option<TextMatch>,
    /// Header fields that have to be there.
    pub headers: Vec<FieldMatch>,
    /// Header fields that must not be so; one that is not there is not so.
    pub without_headers: Vec<FieldMatch>,
    /// Parameters of the query that have to be there.
    pub query: Vec<FieldMatch>,
    /// The port that the client connected to.
    pub port: Option<u16>,
    /// Who sends it.
    pub client: ClientMatch,
}

impl Default for RequestMatch {
    /// Every request.
    fn default() -> Self {
        Self {
            path: PathMatch::Any,
            method: None,
            scheme: None,
            host: None,
            headers: Vec::new(),
            without_headers: Vec::new(),
            query: Vec::new(),
            port: None,
            client: ClientMatch::default(),
        }
    }
}

impl RequestMatch {
    /// Whether the request is matched.
    #[must_use]
    pub fn matches(&self, request: &dyn RequestView) -> bool {
        self.path.matches(request.path()) && self.matches_beside_path(request)
    }

    /// Whether all but the path is matched.
    pub(super) fn matches_beside_path(&self, request: &dyn RequestView) -> bool {
        let is = |wanted: &Option<TextMatch>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted.matches(text));
        let has = |field: &FieldMatch| match &field.claim {
            None => request.header(&field.name).is_some_and(|value| field.value.matches(&value)),
            Some(names) => request.claim(names).iter().any(|text| field.value.matches(text)),
        };
        let asks =
            |field: &FieldMatch| request.query_parameter(&field.name).is_some_and(|value| field.value.matches(&value));
        is(&self.method, request.method())
            && is(&self.scheme, request.scheme())
            && self.host.as_ref().is_none_or(|wanted| names_host(wanted, request))
            && self.port.is_none_or(|port| port == request.port())
            && self.headers.iter().all(has)
            && !self.without_headers.iter().any(has)
            && self.query.iter().all(asks)
            && self.client.holds(request.client())
    }
}

/// Whether a match is on the request's host: without a port, or with the one that it came in at.
fn names_host(wanted: &TextMatch, request: &dyn RequestView) -> bool {
    wanted.matches(request.host()) || wanted.matches(&format!("{}:{}", request.host(), request.port()))
}

impl ClientMatch {
    /// Whether it is that client; one of which nothing is known is nobody in particular.
    pub(super) fn holds(&self, client: Option<&Workload>) -> bool {
        if self.namespace.is_none() && self.labels.is_none() {
            return true;
        }
        let Some(client) = client else {
            return false;
        };
        self.namespace.as_ref().is_none_or(|namespace| *namespace == client.namespace)
            && self.labels.as_ref().is_none_or(|labels| labels.selects(&client.labels))
    }
}
