//! Where tokens are in a request, and how they are taken out of it.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header::COOKIE, uri::PathAndQuery};
use mesh_core::policy::TokenPlace;

/// The part of a request in which tokens are looked for.
pub(crate) struct Carrier<'a> {
    /// Its header.
    pub(crate) headers: &'a mut HeaderMap,
    /// Its path and query.
    pub(crate) target: &'a mut PathAndQuery,
}

impl Carrier<'_> {
    /// What is at the places. A value without the prefix of its place is no token, and perhaps another's.
    pub(super) fn tokens(&self, places: &[TokenPlace]) -> Vec<Cow<'_, str>> {
        let mut found = Vec::new();
        for place in places {
            match place {
                TokenPlace::Header { name, prefix } => {
                    let values = self.headers.get_all(&**name).iter();
                    let rest = values.filter_map(|value| value.as_bytes().strip_prefix(prefix.as_bytes()));
                    found.extend(rest.map(|token| String::from_utf8_lossy(token.trim_ascii())));
                }
                TokenPlace::Parameter(name) => found.extend(self.parameters(name)),
                TokenPlace::Cookie(name) => {
                    let values = self.headers.get_all(COOKIE).iter();
                    let crumbs = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
                    found.extend(crumbs.filter_map(|crumb| of_cookie(crumb, name)).map(String::from_utf8_lossy));
                }
            }
        }
        found
    }

    fn parameters(&self, name: &str) -> impl Iterator<Item = Cow<'_, str>> {
        let query = self.target.query().unwrap_or_default().as_bytes();
        form_urlencoded::parse(query).filter(move |(key, _)| key == name).map(|(_, value)| value)
    }

    /// Takes out what [`Carrier::tokens`] finds.
    pub(super) fn strip(&mut self, places: &[TokenPlace]) {
        for place in places {
            match place {
                TokenPlace::Header { name, prefix } => self.strip_header(name, prefix),
                TokenPlace::Parameter(name) => self.strip_parameter(name),
                TokenPlace::Cookie(name) => self.strip_cookie(name),
            }
        }
    }

    fn strip_header(&mut self, name: &str, prefix: &str) {
        let Ok(name) = HeaderName::try_from(name) else { return };
        let is_other = |value: &&HeaderValue| !value.as_bytes().starts_with(prefix.as_bytes());
        let others: Vec<HeaderValue> = self.headers.get_all(&name).iter().filter(is_other).cloned().collect();
        self.replace(name, others);
    }

    fn strip_parameter(&mut self, name: &str) {
        let Some(query) = self.target.query() else { return };
        let is_other = |part: &&str| {
            let (key, _) = form_urlencoded::parse(part.as_bytes()).next().unwrap_or_default();
            key != *name
        };
        let rest = query.split('&').filter(is_other).collect::<Vec<_>>().join("&");
        if rest.len() == query.len() {
            return;
        }
        let path = self.target.path();
        let stripped = if rest.is_empty() { path.to_owned() } else { format!("{path}?{rest}") };
        // Parts of what was one are one.
        if let Ok(stripped) = PathAndQuery::try_from(stripped) {
            *self.target = stripped;
        }
    }

    fn strip_cookie(&mut self, name: &str) {
        let without = |value: &HeaderValue| {
            let crumbs = value.as_bytes().split(|byte| *byte == b';');
            let others = crumbs.filter(|crumb| of_cookie(crumb, name).is_none()).map(<[u8]>::trim_ascii);
            HeaderValue::from_bytes(&others.collect::<Vec<_>>().join(&b"; "[..])).ok()
        };
        let cookies = self.headers.get_all(COOKIE).iter();
        let others = cookies.filter_map(without).filter(|value| !value.is_empty()).collect();
        self.replace(COOKIE, others);
    }

    fn replace(&mut self, name: HeaderName, values: Vec<HeaderValue>) {
        self.headers.remove(&name);
        for value in values {
            self.headers.append(&name, value);
        }
    }
}

/// The value of one `name=value`.
fn of_cookie<'a>(crumb: &'a [u8], name: &str) -> Option<&'a [u8]> {
    crumb.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> [TokenPlace; 3] {
        [
            TokenPlace::Header { name: "authorization".into(), prefix: "Bearer ".into() },
            TokenPlace::Parameter("access_token".into()),
            TokenPlace::Cookie("session".into()),
        ]
    }

    #[test]
    fn tokens_are_found_and_nothing_else_is_taken_out() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer one"),
            ("authorization", "Basic abc"),
            ("cookie", "theme=dark; session=two;other=x"),
            ("cookie", "session=three"),
            ("x-kept", "Bearer no"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let mut target = PathAndQuery::from_static("/path?a=%20&acc%65ss_token=fo%75r&b&access_token=five");
        let mut carrier = Carrier { headers: &mut headers, target: &mut target };
        assert_eq!(carrier.tokens(&places()), ["one", "four", "five", "two", "three"]);
        carrier.strip(&places());
        assert_eq!(carrier.tokens(&places()), Vec::<String>::new());
        assert_eq!(target, "/path?a=%20&b");
        let kept: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(kept.len(), 3, "{kept:?}");
        for expected in [("authorization", "Basic abc"), ("cookie", "theme=dark; other=x"), ("x-kept", "Bearer no")] {
            assert!(kept.contains(&expected), "{expected:?} in {kept:?}");
        }
    }

    #[test]
    fn a_query_of_tokens_alone_leaves_a_path() {
        let mut headers = HeaderMap::new();
        let mut target = PathAndQuery::from_static("/?access_token=x");
        Carrier { headers: &mut headers, target: &mut target }.strip(&places());
        assert_eq!(target, "/");
    }
}
