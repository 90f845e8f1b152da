//! What a request asks for, and the answers to what is not understood.

use http::{Request, StatusCode};
use mesh_admin::Selection;

use crate::answer::{Answer, refuse};

/// The query of a request, decoded.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads it.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        let text = request.uri().query().unwrap_or_default();
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// Names and values.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Answers with the part of a list that is asked for.
    pub fn select(&self, answer: impl FnOnce(&Selection) -> Answer) -> Answer {
        match Selection::from_query(self.pairs()) {
            Ok(selection) => answer(&selection),
            Err(error) => bad_query(error),
        }
    }
}

/// The query is not understood, and why.
#[must_use]
pub fn bad_query(error: String) -> Answer {
    refuse(StatusCode::BAD_REQUEST, error, None)
}

/// The path takes other methods, `allowed`.
#[must_use]
pub fn method_not_allowed(allowed: &str) -> Answer {
    refuse(StatusCode::METHOD_NOT_ALLOWED, format!("{allowed} only"), None)
}

/// There is no such path; `program` is who answers.
#[must_use]
pub fn unknown_path(path: &str, program: &str) -> Answer {
    let remedy = format!("mesh-ctl and {program} should be of one version");
    refuse(StatusCode::NOT_FOUND, format!("{path} is no path of this API"), Some(&remedy))
}
