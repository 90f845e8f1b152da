//! Account: the balances, in memory. `POST /postings` with `from`, `to` and `cents` moves money.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::http::{Desk, Refusal, cents, no_such_path, text};

/// What each account holds at first, in cents.
const OPENING: [(&str, u64); 3] = [("ada", 1_000_000), ("bob", 50_000), ("eve", 100)];

/// The accounts.
pub(super) struct Accounts(Mutex<BTreeMap<&'static str, u64>>);

impl Accounts {
    pub(super) fn open() -> Self {
        Self(Mutex::new(OPENING.into()))
    }

    /// Both balances afterwards; nothing is moved unless all of it can be.
    fn transfer(&self, from: &str, to: &str, cents: u64) -> Result<(u64, u64), Refusal> {
        let mut balances = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let balance = |name: &str| {
            let found = balances.get_key_value(name).map(|(name, cents)| (*name, *cents));
            found.ok_or_else(|| (StatusCode::NOT_FOUND, format!("{name} has no account here")))
        };
        let ((payer, has), (payee, receives)) = (balance(from)?, balance(to)?);
        if payer == payee {
            return Err((StatusCode::BAD_REQUEST, "payer and payee are the same".to_owned()));
        }
        let left = has.checked_sub(cents).ok_or((StatusCode::CONFLICT, format!("{from} has only {has} cents")))?;
        let sum = receives.checked_add(cents).ok_or((StatusCode::CONFLICT, format!("{to} has too much")))?;
        balances.insert(payer, left);
        balances.insert(payee, sum);
        Ok((left, sum))
    }
}

impl Desk for Accounts {
    async fn answer(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        match path {
            "/postings" => {
                let (payer, payee) = self.transfer(text(&body, "from")?, text(&body, "to")?, cents(&body)?)?;
                Ok(json!({ "payer_balance": payer, "payee_balance": payee }))
            }
            _ => Err(no_such_path(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_moved_whole_or_not_at_all() {
        let accounts = Accounts::open();
        assert_eq!(accounts.transfer("ada", "bob", 1_000_000), Ok((0, 1_050_000)));
        let refused = |from, to, cents| accounts.transfer(from, to, cents).expect_err("refused").0;
        assert_eq!(refused("ada", "bob", 1), StatusCode::CONFLICT);
        assert_eq!(refused("bob", "mallory", 1), StatusCode::NOT_FOUND);
        assert_eq!(refused("bob", "bob", 1), StatusCode::BAD_REQUEST);
        assert_eq!(accounts.transfer("bob", "ada", 50_000), Ok((1_000_000, 50_000)));
    }
}
