//! Whose a request is by its token, and what is answered to one that nobody believes.

use http::HeaderValue;
use mesh_core::l7::RequestView as _;

use super::{
    head::Head,
    ledger::Ledger,
    reply::{Flag, Refusal},
};
use crate::{
    authn::{self, Carrier},
    inbound::Connection,
    worker::NumberedSnapshot,
};

/// Finds and verifies the token that a request is judged by, if it has one.
///
/// # Errors
/// Its tokens are not believed: 401, and 403 for those of somebody else's, as Envoy does.
pub(super) async fn read(
    connection: &Connection,
    seen: &NumberedSnapshot,
    head: &mut Head,
    ledger: &Ledger,
) -> Result<(), Refusal> {
    let carrier = Carrier { headers: &mut head.parts.headers, target: &mut head.target };
    let believed = authn::of_request(&connection.worker, seen, &connection.arrival, carrier).await;
    match believed {
        Ok(token) => {
            ledger.note_token(token.as_ref());
            head.token = token;
            Ok(())
        }
        Err(error) => {
            ledger.note_refused_token(error);
            Err(Refusal::new(error.status(), error.to_string(), Flag::None).with_challenge(challenge(head)))
        }
    }
}

/// What a client needs (RFC 6750, section 3). Of the request's target the query stays out, which may have held the token.
fn challenge(head: &Head) -> Option<HeaderValue> {
    let realm = format!("{}://{}{}", head.scheme(), head.authority, head.target.path());
    let realm: String = realm.chars().filter(|c| !matches!(c, '"' | '\\')).collect();
    HeaderValue::try_from(format!("Bearer realm=\"{realm}\", error=\"invalid_token\"")).ok()
}
