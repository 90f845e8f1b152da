//! What an authorizer answers, however it was asked.

use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;

use crate::Changes;

/// An authorizer's word on a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It goes on, with changes.
    Allowed(Changes),
    /// It is refused, and this is what its client gets.
    Denied(Denied),
}

/// A refusal in the authorizer's own words.
#[derive(Debug, Clone)]
pub struct Denied {
    /// Any status that a response may have, 200 included: a page to log in at, say.
    pub status: StatusCode,
    /// Fields of the response. None of them is the connection's own.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why an answer is none. Asking again may get another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The call itself failed.
    #[error("gRPC status {0}")]
    Grpc(String),
    /// The authorizer says itself that it failed.
    #[error("status {0}")]
    Status(u16),
    /// What came is no message of gRPC: too short, too long, or compressed, which nobody asked for.
    #[error("no whole message of gRPC")]
    Frame,
    /// The message is no `CheckResponse`.
    #[error("no CheckResponse: {0}")]
    Message(String),
    /// It says neither yes nor no.
    #[error("neither a status nor a response in it")]
    Empty,
    /// A header field that it wants written cannot be.
    #[error("header field {0:?} cannot be written")]
    Header(String),
    /// It wants more changed than is reasonable.
    #[error("too many changes")]
    TooMany,
}
