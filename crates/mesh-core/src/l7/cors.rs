//! Cross-origin requests, by the Fetch standard (section 3.3).

use super::RequestView;
use super::rule::Cors;

/// A header field's name and value.
pub type Field = (&'static str, String);

/// What becomes of a request that says where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Crossing {
    /// It is no cross-origin request, or one of an origin that may not; it goes on, and the response has no word of it.
    Silent,
    /// It goes on, and the response has these fields.
    Allowed(Vec<Field>),
    /// It is a preflight request: it is answered at once, with these fields, and with none where the origin may not.
    Preflight(Vec<Field>),
}

impl Cors {
    /// Judges a request.
    #[must_use]
    pub fn judge(&self, request: &dyn RequestView) -> Crossing {
        let Some(origin) = request.header("origin") else {
            return Crossing::Silent;
        };
        let preflight = request.method() == "OPTIONS" && request.header("access-control-request-method").is_some();
        let allowed = self.allow_origins.iter().any(|known| known.matches(&origin));
        match (allowed, preflight) {
            (true, true) => Crossing::Preflight(self.preflight(&origin, request)),
            (true, false) => Crossing::Allowed(self.common(&origin)),
            (false, true) if !self.forward_unmatched_preflights => Crossing::Preflight(Vec::new()),
            (false, _) => Crossing::Silent,
        }
    }

    /// What both kinds of answers say. That of a preflight need not tell what is exposed, and the Gateway API's suite wants it told.
    fn common(&self, origin: &str) -> Vec<Field> {
        let mut fields = vec![("access-control-allow-origin", origin.to_owned())];
        if self.allow_credentials {
            fields.push(("access-control-allow-credentials", "true".to_owned()));
        }
        if !self.expose_headers.is_empty() {
            fields.push(("access-control-expose-headers", self.expose_headers.join(", ")));
        }
        fields
    }

    fn preflight(&self, origin: &str, request: &dyn RequestView) -> Vec<Field> {
        let mut fields = self.common(origin);
        // A star stands for itself where credentials are sent (Fetch, 3.3.4): what was asked for is said instead.
        let mut list = |name, listed: &[std::sync::Arc<str>], asked: &str| {
            let star = self.allow_credentials && listed.iter().any(|value| **value == *"*");
            let text = if star { request.header(asked).unwrap_or_default().into_owned() } else { listed.join(", ") };
            if !text.is_empty() {
                fields.push((name, text));
            }
        };
        list("access-control-allow-methods", &self.allow_methods, "access-control-request-method");
        list("access-control-allow-headers", &self.allow_headers, "access-control-request-headers");
        if let Some(age) = self.max_age {
            fields.push(("access-control-max-age", age.as_secs().to_string()));
        }
        fields
    }
}
