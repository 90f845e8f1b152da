//! What policies ask of a request, where somebody reads it.

use std::collections::BTreeMap;

use super::Patterns;
use crate::l7::path::Readings;
use crate::l7::{Regex, RequestView};

/// A fact of a request, and the values that it may have. What rests on a token fails where none was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestTest {
    /// The host, without its port and in lower case, or with the port that the client connected to.
    Host(Patterns),
    /// The method.
    Method(Patterns),
    /// The path.
    Path(PathPatterns),
    /// A header field, by its name in lower case.
    Header(Box<str>, Patterns),
    /// The verified token's issuer and subject, joined by a slash.
    RequestPrincipal(Patterns),
    /// One of the verified token's audiences.
    Audience(Patterns),
    /// Whom the verified token was issued to (`azp`).
    Presenter(Patterns),
    /// A claim of the verified token, by the names that lead to it.
    Claim(Box<[Box<str>]>, Patterns),
    /// The name that a TLS client asked for.
    Sni(Patterns),
}

/// Matches on a path: of which one has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathPatterns {
    patterns: Patterns,
    templates: Box<[Regex]>,
}

/// Why a text is no template of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A star or brace stands outside of an operator.
    #[error("'*', '{{' and '}}' may stand only as {{*}} or {{**}}, which are whole segments of the path")]
    Operator,
    /// An operator follows `{**}`.
    #[error("{{**}} has to be the last operator")]
    AfterLast,
    /// It is too long.
    #[error("the template is too long")]
    TooLong,
}

impl PathPatterns {
    /// Of patterns, and of templates in the form of [`template`].
    #[must_use]
    pub fn new(patterns: Patterns, templates: Vec<Regex>) -> Self {
        Self { patterns, templates: templates.into() }
    }

    /// Whether one of them matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.patterns.matches(path) || self.templates.iter().any(|template| template.matches(path))
    }
}

/// Reads a template of a path: `{*}` stands for one segment, `{**}` for any number of them.
///
/// # Errors
/// See [`TemplateError`].
pub fn template(text: &str) -> Result<Regex, TemplateError> {
    let mut pattern = String::new();
    let mut is_last = false;
    for (index, segment) in text.split('/').enumerate() {
        if index > 0 {
            pattern.push('/');
        }
        match segment {
            "{*}" | "{**}" if is_last => return Err(TemplateError::AfterLast),
            "{*}" => pattern.push_str("[^/]+"),
            "{**}" => {
                is_last = true;
                pattern.push_str(".*");
            }
            literal if literal.contains(['*', '{', '}']) => return Err(TemplateError::Operator),
            literal => pattern.push_str(&Regex::escaped(literal)),
        }
    }
    Regex::new(&pattern).map_err(|_| TemplateError::TooLong)
}

/// What a verified token (RFC 7519) says of who sends a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Token {
    /// Its issuer and subject, joined by a slash; none where it says neither of them.
    pub principal: Option<String>,
    /// Its audiences.
    pub audiences: Vec<String>,
    /// Whom it was issued to.
    pub presenter: Option<String>,
    /// All its claims.
    pub claims: BTreeMap<String, Claim>,
}

/// A claim of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// One value, or several of which one has to match.
    Texts(Vec<String>),
    /// Further claims.
    Nested(BTreeMap<String, Claim>),
}

impl Token {
    /// The texts of a claim, by the names that lead to it.
    #[must_use]
    pub fn claim(&self, names: &[Box<str>]) -> &[String] {
        let Some((last, way)) = names.split_last() else {
            return &[];
        };
        let mut claims = &self.claims;
        for name in way {
            match claims.get(&**name) {
                Some(Claim::Nested(inner)) => claims = inner,
                _ => return &[],
            }
        }
        match claims.get(&**last) {
            Some(Claim::Texts(texts)) => texts,
            _ => &[],
        }
    }
}

/// What is known of a request that wants on.
#[derive(Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The request; its path in normal form ([`crate::l7::path::normalised`]).
    pub view: &'a dyn RequestView,
    /// The token that was verified.
    pub token: Option<&'a Token>,
}

impl std::fmt::Debug for RequestFacts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestFacts")
            .field("method", &self.view.method())
            .field("path", &self.view.path())
            .finish_non_exhaustive()
    }
}

/// A request by one reading of its path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) facts: &'a RequestFacts<'a>,
    pub(super) path: &'a str,
}

impl RequestFacts<'_> {
    pub(super) fn readings(&self) -> Readings<'_> {
        Readings::of(self.view.path())
    }
}

impl RequestTest {
    /// The key of the fact, as `when` writes it, or nearly so.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Host(_) => "request.host",
            Self::Method(_) => "request.method",
            Self::Path(_) => "request.path",
            Self::Header(..) => "request.headers",
            Self::RequestPrincipal(_) => "request.auth.principal",
            Self::Audience(_) => "request.auth.audiences",
            Self::Presenter(_) => "request.auth.presenter",
            Self::Claim(..) => "request.auth.claims",
            Self::Sni(_) => "connection.sni",
        }
    }

    pub(super) fn holds(&self, reading: Reading<'_>) -> bool {
        let RequestFacts { view, token } = *reading.facts;
        match self {
            Self::Host(patterns) => {
                patterns.matches(view.host()) || patterns.matches(&format!("{}:{}", view.host(), view.port()))
            }
            Self::Method(patterns) => patterns.matches(view.method()),
            Self::Path(patterns) => patterns.matches(reading.path),
            Self::Header(name, patterns) => view.header(name).is_some_and(|value| patterns.matches(&value)),
            Self::RequestPrincipal(patterns) => {
                token.and_then(|token| token.principal.as_deref()).is_some_and(|principal| patterns.matches(principal))
            }
            Self::Audience(patterns) => {
                token.is_some_and(|token| token.audiences.iter().any(|audience| patterns.matches(audience)))
            }
            Self::Presenter(patterns) => {
                token.and_then(|token| token.presenter.as_deref()).is_some_and(|presenter| patterns.matches(presenter))
            }
            Self::Claim(names, patterns) => {
                token.is_some_and(|token| token.claim(names).iter().any(|text| patterns.matches(text)))
            }
            // Where a name is known, the connection's facts have it.
            Self::Sni(_) => false,
        }
    }
}
