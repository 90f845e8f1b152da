//! What becomes of a request that nobody sends, as a node and a waypoint say alike.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use mesh_admin::{RequestQuestion, RequestWhy};
use mesh_core::why::{NoToken, SameNode, Tokens};
use mesh_core::{Snapshot, Workload};
use mesh_jwt::{AssumedClaims, Moment};

use crate::answer::{Answer, json, refuse};
use crate::query::Query;

/// Who answers: a waypoint's or gateway's pod, if it is known, and what that has to add.
pub struct Asked<'a> {
    /// The pod.
    pub reader: Option<&'a Arc<Workload>>,
    /// Completes the answer.
    pub complete: &'a dyn Fn(&mut RequestWhy),
}

/// Answers the question that a query is, by a snapshot of the cluster. `same_node` says how the client's node connects its own pods; a node's
/// daemon answers as nobody who reads requests.
#[must_use]
pub fn request(query: &Query, snapshot: &Snapshot, same_node: SameNode, asked: Option<&Asked<'_>>) -> Answer {
    let answered = RequestQuestion::from_query(query.pairs()).and_then(|question| {
        let claims = question.claims.as_deref().map(|text| AssumedClaims::parse(text, now())).transpose();
        let claims = claims.map_err(|error| format!("claims: {error}"))?;
        let tokens: &dyn Tokens = claims.as_ref().map_or(&NoToken, |claims| claims);
        let reader = asked.and_then(|asked| asked.reader);
        let mut answer = RequestWhy::answer(snapshot, &question, same_node, tokens, reader)?;
        asked.iter().for_each(|asked| (asked.complete)(&mut answer));
        Ok::<_, String>(answer)
    });
    match answered {
        Ok(answer) => json(&answer),
        Err(error) => refuse(StatusCode::BAD_REQUEST, error, None),
    }
}

fn now() -> Moment {
    Moment(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())
}
