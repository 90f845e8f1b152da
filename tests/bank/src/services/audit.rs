//! Audit: `POST /records` with `what` appends to the record and says which number it got.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::http::{Desk, Refusal, no_such_path, text};

/// How many records there are; their texts go to standard output, where a log is kept.
#[derive(Default)]
pub(super) struct Records(AtomicU64);

impl Desk for Records {
    async fn answer(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        match path {
            "/records" => {
                let what = text(&body, "what")?;
                let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
                // A closed stdout is no reason to stop serving.
                let _ = writeln!(std::io::stdout().lock(), "{}", json!({ "record": number, "what": what }));
                Ok(json!({ "record": number }))
            }
            _ => Err(no_such_path(path)),
        }
    }
}
