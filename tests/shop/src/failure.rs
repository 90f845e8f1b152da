//! A failed hop, as the caller sees it.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::exchange::Reply;

/// Why a checkout failed, and at which hop. Served as the body of a 502, and passed on unchanged by
/// the programs between the failing hop and the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reported_by} could not use {failed}: {reason}")]
pub struct Failure {
    /// The service that could not be used.
    pub failed: String,
    /// What happened, with the address that was tried.
    pub reason: String,
    /// The service that noticed.
    pub reported_by: String,
}

impl Failure {
    pub(crate) fn into_reply(self) -> Reply {
        Reply::json(StatusCode::BAD_GATEWAY, &self)
    }
}

/// What a program answers when it does not serve the request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// An upstream failed: 502.
    #[error(transparent)]
    Upstream(#[from] Failure),
    /// The request lacks something: 400. To be repaired by the client.
    #[error("{0}")]
    BadRequest(String),
    /// There is no such thing to get: 404.
    #[error("{0} does not exist")]
    NotFound(String),
}

impl Refusal {
    pub(crate) fn into_reply(self) -> Reply {
        let (status, text) = match self {
            Self::Upstream(failure) => return failure.into_reply(),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, self.to_string()),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, self.to_string()),
        };
        Reply::json(status, &serde_json::json!({ "error": text }))
    }
}

/// An error with its causes: the text of tonic's and hyper's names none.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
