//! Risk: `POST /scores` with `user` and `cents` rates a payment from 0 to 100. What it knows is nobody else's business.

use serde_json::{Value, json};

use crate::http::{Desk, Refusal, cents, no_such_path, text};

/// Rates payments.
pub(super) struct Risk;

impl Desk for Risk {
    async fn answer(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        match path {
            "/scores" => Ok(json!({ "score": score(text(&body, "user")?, cents(&body)?) })),
            _ => Err(no_such_path(path)),
        }
    }
}

/// Large sums are riskier, and so is eve.
fn score(user: &str, cents: u64) -> u64 {
    let of_user = if user == "eve" { 80 } else { 5 };
    (of_user + cents / 50_000).min(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_stay_within_their_scale() {
        assert_eq!((score("ada", 100), score("ada", 500_000)), (5, 15));
        assert_eq!((score("eve", 100), score("eve", u64::MAX)), (80, 100));
    }
}
