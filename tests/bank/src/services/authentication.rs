//! Authentication: `POST /tokens` with `user` and `token` says whether the token is that user's.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::http::{Desk, Refusal, no_such_path, text};

/// Knows tokens.
pub(super) struct Authentication;

impl Desk for Authentication {
    async fn answer(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        match path {
            "/tokens" => {
                let (user, token) = (text(&body, "user")?, text(&body, "token")?);
                // A demonstration's token: its point is who may ask, not how tokens are made.
                if token.strip_suffix("-token") != Some(user) {
                    return Err((StatusCode::UNAUTHORIZED, format!("this is no token of {user}")));
                }
                Ok(json!({ "user": user }))
            }
            _ => Err(no_such_path(path)),
        }
    }
}
