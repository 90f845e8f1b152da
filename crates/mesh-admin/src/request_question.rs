//! A question about a request that nobody sends.

use mesh_core::l7::path::PathError;
use mesh_core::why::Imagined;

/// Header fields that a question may have.
const MAX_FIELDS: usize = 128;
/// The form of a URL that is asked about.
const FORM: &str =
    "write the request as http://SERVICE.NAMESPACE[:PORT]/PATH, or with a gateway as http[s]://HOST[:PORT]/PATH";

/// What is asked about a request: the query of [`crate::path::REQUEST`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestQuestion {
    /// Who sends it: `NAMESPACE/POD`, the name of a pod or of its owner, or an address; with a gateway, an address outside.
    pub source: Option<String>,
    /// The gateway that it comes in at, as `NAMESPACE/NAME`.
    pub gateway: Option<String>,
    /// The namespace of names that say none.
    pub namespace: Option<String>,
    /// The method.
    pub method: String,
    /// What is asked for.
    pub url: String,
    /// Header fields, as `NAME: VALUE`.
    pub headers: Vec<String>,
    /// The token that it carries: its claims in JSON, or all of it; no signature is asked for.
    pub claims: Option<String>,
}

/// The parts of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Url<'a> {
    pub(crate) tls: bool,
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
    path: &'a str,
    query: Option<&'a str>,
}

impl RequestQuestion {
    /// The question as names and values of a query.
    #[must_use]
    pub fn to_query(&self) -> Vec<(&'static str, String)> {
        let mut query = vec![("method", self.method.clone()), ("url", self.url.clone())];
        let optional = [
            ("src", &self.source),
            ("gateway", &self.gateway),
            ("namespace", &self.namespace),
            ("claims", &self.claims),
        ];
        query.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        query.extend(self.headers.iter().map(|field| ("header", field.clone())));
        query
    }

    /// Reads a query.
    ///
    /// # Errors
    /// A sentence about the first name that is not understood, or about what is missing.
    pub fn from_query<'a>(query: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut question = Self { method: "GET".to_owned(), ..Self::default() };
        for (name, value) in query {
            let value = value.to_owned();
            match name {
                "src" => question.source = Some(value),
                "gateway" => question.gateway = Some(value),
                "namespace" => question.namespace = Some(value),
                "claims" => question.claims = Some(value),
                "method" => question.method = value,
                "url" => question.url = value,
                "header" if question.headers.len() < MAX_FIELDS => question.headers.push(value),
                "header" => return Err(format!("a question has at most {MAX_FIELDS} header fields")),
                _ => {
                    let known = "src, gateway, namespace, claims, method, url and header are";
                    return Err(format!("{name} is not known here: {known}"));
                }
            }
        }
        if question.url.is_empty() { Err("url is needed".to_owned()) } else { Ok(question) }
    }

    /// The parts of the URL.
    pub(crate) fn parsed(&self) -> Result<Url<'_>, String> {
        Url::parse(&self.url).ok_or_else(|| format!("{}: {FORM}", self.url))
    }

    /// The request, as a waypoint reads it; that it has no reading is an answer.
    pub(crate) fn request(&self, url: Url<'_>) -> Result<Result<Imagined, PathError>, String> {
        let field = |text: &String| {
            let (name, value) = text.split_once(':').ok_or_else(|| format!("{text}: write a field as NAME: VALUE"))?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        };
        let headers = self.headers.iter().map(field).collect::<Result<Vec<_>, String>>()?;
        let method = self.method.as_str();
        if method.is_empty()
            || !method.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_!#$%&'*+.^`|~".contains(&byte))
        {
            return Err(format!("{method:?} is no method"));
        }
        let request = Imagined::new(method, url.host, (url.path, url.query), headers);
        Ok(request.map(|mut request| {
            request.tls = url.tls;
            request
        }))
    }
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (tls, rest) = match text.strip_prefix("http://") {
            Some(rest) => (false, rest),
            None => (true, text.strip_prefix("https://")?),
        };
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let bracketed = authority.starts_with('[');
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !bracketed || host.ends_with(']') => {
                (host, Some(port.parse().ok().filter(|port| *port > 0)?))
            }
            _ => (authority, None),
        };
        let named = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
        let is_host = !host.is_empty() && (named(host) || bracketed && host.ends_with(']'));
        is_host.then_some(Self { tls, host, port, path, query })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_survives_its_query_and_urls_have_one_reading() {
        let question = RequestQuestion {
            source: Some("app/client".into()),
            method: "POST".into(),
            url: "http://cart.shop:81/a?b=c".into(),
            headers: vec!["x-a: 1".into(), "x-a: 2".into()],
            ..RequestQuestion::default()
        };
        let query = question.to_query();
        assert_eq!(RequestQuestion::from_query(query.iter().map(|(name, value)| (*name, &**value))), Ok(question));
        assert!(RequestQuestion::from_query([("uri", "x")]).unwrap_err().contains("uri is not known"));
        let url = |text| Url::parse(text).map(|url| (url.tls, url.host, url.port, url.path, url.query));
        assert_eq!(url("https://a.b"), Some((true, "a.b", None, "", None)));
        assert_eq!(url("http://[::1]:80/x?y?z#f"), Some((false, "[::1]", Some(80), "/x", Some("y?z"))));
        assert_eq!(url("http://[::1]/"), Some((false, "[::1]", None, "/", None)));
        assert_eq!(url("http://a?q"), Some((false, "a", None, "", Some("q"))));
        for wrong in ["/a", "ftp://a/", "http://", "http://u@a/", "http://a:0/", "http://a:x/", "http://a b/"] {
            assert_eq!(url(wrong), None, "{wrong}");
        }
    }
}
