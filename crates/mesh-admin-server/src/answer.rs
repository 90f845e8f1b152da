//! Answers, as HTTP.

use std::convert::Infallible;

use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Bytes;
use mesh_admin::Refusal;
use serde::Serialize;

/// What a client gets.
pub type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A value as JSON.
#[must_use]
pub fn json<T: Serialize>(value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => whole(StatusCode::OK, text),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error, None),
    }
}

/// A refusal with its remedy.
#[must_use]
pub fn refuse(status: StatusCode, error: impl ToString, remedy: Option<&str>) -> Answer {
    let refusal = Refusal { error: error.to_string(), remedy: remedy.map(str::to_owned) };
    whole(status, serde_json::to_vec(&refusal).unwrap_or_default())
}

fn whole(status: StatusCode, mut text: Vec<u8>) -> Answer {
    text.push(b'\n');
    let mut answer = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
