//! The log's filter, by request.

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use mesh_admin::LogFilter;

use crate::{
    answer::{Answer, json, refuse},
    log_control::LogControl,
};

/// The longest body of a request, in bytes.
const MAX_BODY: usize = 4096;

/// Answers with the filter in force.
#[must_use]
pub fn log_filter(log: &LogControl) -> Answer {
    json(&LogFilter { filter: log.filter() })
}

/// Puts another filter in force.
pub async fn set_log_filter(log: &LogControl, request: Request<Incoming>) -> Answer {
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
        let error = format!("a filter has at most {MAX_BODY} bytes");
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, error, None);
    };
    let wanted: LogFilter = match serde_json::from_slice(&body.to_bytes()) {
        Ok(wanted) => wanted,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error, Some("send {\"filter\": \"info\"}")),
    };
    let before = log.filter();
    match log.set(&wanted.filter) {
        Ok(()) => {
            tracing::info!(before, filter = wanted.filter, "log filter changed");
            json(&wanted)
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, error, None),
    }
}
