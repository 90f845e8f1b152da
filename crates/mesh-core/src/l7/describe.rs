//! Rules in words, for people: the same everywhere that they are told of.

use std::fmt;

use super::matching::{FieldMatch, PathMatch, RequestMatch, TextMatch};
use super::resilience::{Abort, Fault};
use super::rule::{Action, BackendTarget, Rule};

impl fmt::Display for TextMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "={text}"),
            Self::Prefix(text) => write!(f, "={text}*"),
            Self::Regex(regex) => write!(f, "~{}", regex.as_str()),
            Self::Present => f.write_str(" is there"),
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any path"),
            Self::Exact(path) => f.write_str(path),
            Self::ElementPrefix(path) => write!(f, "{}/*", path.trim_end_matches('/')),
            Self::Prefix(path) => write!(f, "{path}*"),
            Self::Regex(regex) => write!(f, "~{}", regex.as_str()),
            Self::ExactIgnoringCase(path) => write!(f, "{path} in any case"),
            Self::PrefixIgnoringCase(path) => write!(f, "{path}* in any case"),
        }
    }
}

impl fmt::Display for FieldMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.value)
    }
}

impl fmt::Display for RequestMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)?;
        let texts = [("method", &self.method), ("scheme", &self.scheme), ("host", &self.host)];
        for (name, wanted) in texts {
            if let Some(wanted) = wanted {
                write!(f, ", {name}{wanted}")?;
            }
        }
        for (what, fields) in [("", &self.headers), ("without ", &self.without_headers), ("?", &self.query)] {
            for field in fields {
                write!(f, ", {what}{field}")?;
            }
        }
        if let Some(port) = self.port {
            write!(f, ", port {port}")?;
        }
        if let Some(namespace) = &self.client.namespace {
            write!(f, ", from namespace {namespace}")?;
        }
        if self.client.labels.is_some() { f.write_str(", from pods by their labels") } else { Ok(()) }
    }
}

impl BackendTarget {
    /// Where it is, for a request to that port.
    #[must_use]
    pub fn at_port(&self, asked: u16) -> String {
        match self {
            Self::Service { hostname, port, subset } => {
                let subset = subset.as_ref().map_or(String::new(), |subset| format!(" subset {subset}"));
                format!("{hostname}:{}{subset}", port.unwrap_or(asked))
            }
            Self::Unresolved { status, reason } => format!("nobody, answered with {status}: {reason}"),
        }
    }
}

impl Action {
    /// What becomes of requests, in a few words.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Forward(_) => "forwarded".to_owned(),
            Self::Redirect(redirect) => format!("redirected with {}", redirect.status),
            Self::Respond(response) => format!("answered with {}", response.status),
        }
    }
}

impl Rule {
    /// What happens to a request beside being sent somewhere, for a request to that port.
    #[must_use]
    pub fn beside(&self, port: u16) -> Vec<String> {
        let mut with = faults(&self.fault);
        let limits = [
            ("timeout", self.timeouts.request),
            ("timeout of an attempt", self.timeouts.backend_request),
            ("timeout without an octet", self.timeouts.idle),
        ];
        with.extend(limits.iter().filter_map(|(name, limit)| Some(format!("{name} {:?}", (*limit)?))));
        if let Some(retry) = &self.retry {
            let each = retry.per_try_timeout.map_or(String::new(), |limit| format!(", each at most {limit:?}"));
            with.push(format!("up to {} retries{each}", retry.attempts));
        }
        for mirror in &self.mirrors {
            with.push(format!("{} % copied to {}", mirror.percent.as_f64(), mirror.target.at_port(port)));
        }
        if let Some(authority) = &self.rewrite.authority {
            with.push(format!("host {authority}"));
        }
        for (what, edits) in [("request", &self.request_headers), ("response", &self.response_headers)] {
            if !edits.is_empty() {
                with.push(format!("changes to the {what}'s header"));
            }
        }
        if self.cors.is_some() {
            with.push("an answer to cross-origin requests".to_owned());
        }
        with
    }
}

fn faults(fault: &Fault) -> Vec<String> {
    let mut faults = Vec::new();
    if let Some((percent, delay)) = fault.delay {
        faults.push(format!("{} % delayed by {delay:?}", percent.as_f64()));
    }
    if let Some((percent, abort)) = fault.abort {
        let answer = match abort {
            Abort::Http(status) => format!("{status}"),
            Abort::Grpc(status) => format!("gRPC status {status}"),
        };
        faults.push(format!("{} % aborted with {answer}", percent.as_f64()));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_names_everything_that_it_asks_for() {
        let field = |name: &str, value| FieldMatch { name: name.into(), claim: None, value };
        let matched = RequestMatch {
            path: PathMatch::ElementPrefix("/cart/".into()),
            method: Some(TextMatch::Exact("GET".into())),
            headers: vec![field("x-canary", TextMatch::Present)],
            without_headers: vec![field("x-old", TextMatch::Prefix("1".into()))],
            query: vec![field("q", TextMatch::Exact("2".into()))],
            ..RequestMatch::default()
        };
        assert_eq!(matched.to_string(), "/cart/*, method=GET, x-canary is there, without x-old=1*, ?q=2");
        assert_eq!(RequestMatch::default().to_string(), "any path");
        assert_eq!(PathMatch::ElementPrefix("/".into()).to_string(), "/*");
    }
}
