//! Notification: `POST /notices` with `user` and `text` queues a notice and says which number it got.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::http::{Desk, Refusal, no_such_path, text};

/// How many notices were queued.
#[derive(Default)]
pub(super) struct Notifications(AtomicU64);

impl Desk for Notifications {
    async fn answer(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        match path {
            "/notices" => {
                let (user, _) = (text(&body, "user")?, text(&body, "text")?);
                let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
                Ok(json!({ "notice": number, "user": user }))
            }
            _ => Err(no_such_path(path)),
        }
    }
}
