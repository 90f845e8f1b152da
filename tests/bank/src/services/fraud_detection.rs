//! Fraud detection: `POST /checks` with `from` and `cents` asks risk for a score and decides.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::ask;
use crate::http::{Desk, Refusal, cents, no_such_path, text};
use crate::service::Service;

/// From this score on a payment is refused.
const TOO_RISKY: u64 = 80;

/// Judges payments.
pub(super) struct FraudDetection;

impl Desk for FraudDetection {
    async fn answer(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        match path {
            "/checks" => {
                let (from, cents) = (text(&body, "from")?, cents(&body)?);
                let rated = ask(Service::Risk, "/scores", &json!({ "user": from, "cents": cents })).await?;
                match rated["score"].as_u64() {
                    Some(score) if score < TOO_RISKY => Ok(json!({ "score": score })),
                    Some(score) => Err((StatusCode::FORBIDDEN, format!("a risk of {score} of 100 is too high"))),
                    None => Err((StatusCode::BAD_GATEWAY, "risk gave no score".to_owned())),
                }
            }
            _ => Err(no_such_path(path)),
        }
    }
}
