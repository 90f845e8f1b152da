//! A request as the shop's handlers see it, and their reply; free of hyper's types.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::about::Ends;
use crate::failure::Refusal;
use crate::tracing_headers::TracingHeaders;

/// A whole request.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: TracingHeaders,
    pub(crate) body: Bytes,
    pub(crate) ends: Ends,
}

impl Exchange {
    /// A query parameter's first value.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let (_, value) = self.query.iter().find(|(known, _)| known == name)?;
        Some(value)
    }

    /// A query parameter that must be there and not empty.
    pub(crate) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.parameter(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Refusal::BadRequest(format!("query parameter {name} is missing")))
    }

    /// The body read as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Refusal::BadRequest(format!("the body is not as expected: {error}")))
    }

    pub(crate) fn not_found(&self) -> Refusal {
        Refusal::NotFound(format!("{} {}", self.method, self.path))
    }
}

/// A whole reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn text(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type, body: body.into() }
    }

    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(mut text) => {
                text.push(b'\n');
                Self { status, content_type: "application/json", body: text.into() }
            }
            Err(error) => Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                content_type: "text/plain",
                body: error.to_string().into(),
            },
        }
    }

    pub(crate) fn ok(body: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, body)
    }
}
