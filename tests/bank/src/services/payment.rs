//! Payment: `POST /payments` with `from`, `token`, `to` and `cents` has everything done that a payment takes.

use serde_json::{Value, json};

use super::ask;
use crate::http::{Desk, Refusal, cents, no_such_path, text};
use crate::service::Service;

/// Carries payments out.
pub(super) struct Payments;

impl Desk for Payments {
    async fn answer(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        match path {
            "/payments" => pay(&body).await,
            _ => Err(no_such_path(path)),
        }
    }
}

async fn pay(order: &Value) -> Result<Value, Refusal> {
    let (from, to, cents) = (text(order, "from")?, text(order, "to")?, cents(order)?);
    let token = text(order, "token")?;
    ask(Service::Authentication, "/tokens", &json!({ "user": from, "token": token })).await?;
    let checked = ask(Service::FraudDetection, "/checks", &json!({ "from": from, "cents": cents })).await?;
    let moved = ask(Service::Transaction, "/transactions", &json!({ "from": from, "to": to, "cents": cents })).await?;
    let what = format!("{from} paid {to} {cents} cents");
    let noted = ask(Service::Audit, "/records", &json!({ "what": what })).await?;
    let told = ask(Service::Notification, "/notices", &json!({ "user": from, "text": what })).await?;
    Ok(json!({
        "paid": cents,
        "score": checked["score"],
        "balance": moved["payer_balance"],
        "record": noted["record"],
        "notice": told["notice"],
    }))
}
