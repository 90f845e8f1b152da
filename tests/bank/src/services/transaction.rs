//! Transaction: `POST /transactions` with `from`, `to` and `cents` has the accounts changed and that recorded.

use serde_json::{Value, json};

use super::ask;
use crate::http::{Desk, Refusal, cents, no_such_path, text};
use crate::service::Service;

/// Moves money.
pub(super) struct Transactions;

impl Desk for Transactions {
    async fn answer(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        match path {
            "/transactions" => {
                let (from, to, cents) = (text(&body, "from")?, text(&body, "to")?, cents(&body)?);
                let posting = json!({ "from": from, "to": to, "cents": cents });
                let mut moved = ask(Service::Account, "/postings", &posting).await?;
                let what = json!({ "what": format!("{cents} cents from {from} to {to}") });
                moved["record"] = ask(Service::Audit, "/records", &what).await?["record"].take();
                Ok(moved)
            }
            _ => Err(no_such_path(path)),
        }
    }
}
