//! A client: checks out, and gives what the shop answered.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::Failure;
use crate::peers::Address;
use crate::tracing_headers::TracingHeaders;
use crate::upstream::{CHECKOUT_TIMEOUT, Call, Upstream};

/// What to buy, and with which headers.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// Who buys.
    pub user: String,
    /// What is bought.
    pub item: String,
    /// The text to find in captures.
    pub marker: String,
    /// The card to charge; the frontend's default where absent.
    pub card: Option<String>,
    /// Headers of the request; only those of tracing are sent.
    pub headers: HeaderMap,
}

/// A client of one frontend.
pub struct Client(Upstream);

impl Client {
    /// With `keep_alive`, one connection serves all checkouts; without, each has its own.
    pub fn new(frontend: Address, keep_alive: bool) -> Self {
        let max_age = if keep_alive { Duration::MAX } else { Duration::ZERO };
        Self(Upstream::new("client", "frontend", frontend, CHECKOUT_TIMEOUT, max_age))
    }

    /// Checks out once.
    ///
    /// # Errors
    /// The hop that failed: `frontend` itself, or one behind it.
    pub async fn checkout(&self, checkout: &Checkout) -> Result<Value, Failure> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("user", &checkout.user).append_pair("item", &checkout.item);
        if let Some(card) = &checkout.card {
            query.append_pair("card", card);
        }
        let target = format!("/checkout?{}", query.finish());
        let headers = TracingHeaders::from_request(&checkout.headers).with_marker(&checkout.marker);
        self.0.json(&Call::get(&target, &headers)).await
    }

    /// Gets any path; the answer's status and body as JSON.
    ///
    /// # Errors
    /// The frontend could not be reached.
    pub async fn get(&self, target: &str) -> Result<(StatusCode, Value), Failure> {
        let headers = TracingHeaders::default();
        let (status, body) =
            self.0.exchange(&Call::get(target, &headers)).await.map_err(|error| self.0.failure(error.to_string()))?;
        let text = || json!(String::from_utf8_lossy(&body));
        Ok((status, serde_json::from_slice(&body).unwrap_or_else(|_| text())))
    }
}
