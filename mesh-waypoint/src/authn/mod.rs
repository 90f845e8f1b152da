//! Whose a request is, by the token that it carries (RequestAuthentication).
//!
//! A request without a token is nobody's and goes on, to the policies. One with tokens of which no rule believes any does not.
//! `mesh-jwt` reads and verifies; here is where tokens are in requests (`places.rs`), where keys come from (`keys.rs`,
//! `fetch.rs`) and what a thread remembers (`verified.rs`).

mod fetch;
mod keys;
mod places;
mod verified;

use std::{
    rc::Rc,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use mesh_core::{
    Service, Snapshot,
    policy::{PolicyTarget, RequestAuthentication, TokenRule, request::Token},
};
use mesh_jwt::{Compact, Moment, TokenError, settled};

pub(crate) use self::keys::KeyStore;
pub(crate) use self::places::Carrier;
pub(crate) use self::verified::Memory;
use self::verified::Verified;
use crate::{
    inbound::{Arrival, Target, admission::at_place},
    serve::Shared,
    worker::{NumberedSnapshot, Worker},
};

/// Verifies the tokens of a request, takes them out where they do not go on, and shows the destination what the rules say.
///
/// # Errors
/// It has tokens, and none of the rules believes them.
pub(crate) async fn of_request(
    worker: &Worker,
    NumberedSnapshot { snapshot, number }: &NumberedSnapshot,
    arrival: &Arrival,
    mut carrier: Carrier<'_>,
) -> Result<Option<Rc<Token>>, TokenError> {
    let rules = rules_of(worker, snapshot, &arrival.target);
    // What the destination believes to be claims is not the client's to say.
    for rule in &rules {
        let shown = rule.claim_fields.iter().map(|shown| &*shown.field);
        for field in shown.chain(rule.payload_field.as_deref()) {
            carrier.headers.remove(field);
        }
    }
    let mut outcomes = Vec::with_capacity(rules.len());
    for rule in rules {
        let believed = verify_all(worker, *number, rule, &carrier).await;
        outcomes.push(believed.map(|believed| believed.map(|believed| (rule, believed))));
    }
    let own = &worker.shared.telemetry.own;
    let verified = settled(outcomes).inspect_err(|error| own.token(error.reason()))?;
    let Some((_, first)) = verified.first() else { return Ok(None) };
    own.token("verified");
    let token = first.token.clone();
    for (rule, verified) in verified {
        if !rule.forwards_token {
            carrier.strip(&rule.places);
        }
        for (field, value) in &verified.fields {
            carrier.headers.insert(field, value.clone());
        }
    }
    Ok(Some(token))
}

/// What comes of the tokens at a rule's places, which have to hold all of them; the first one counts.
async fn verify_all(
    worker: &Worker,
    number: u64,
    rule: &Arc<TokenRule>,
    carrier: &Carrier<'_>,
) -> Result<Option<Rc<Verified>>, TokenError> {
    let mut first = None;
    for text in carrier.tokens(&rule.places) {
        let verified = verify(worker, number, rule, &text).await?;
        first.get_or_insert(verified);
    }
    Ok(first)
}

async fn verify(worker: &Worker, number: u64, rule: &Arc<TokenRule>, text: &str) -> Result<Rc<Verified>, TokenError> {
    let memory = &worker.tokens;
    let source = memory.source(rule, number, &worker.shared.keys);
    let digest = sha256(text);
    if let Some(keys) = source.current()
        && let Some(known) = memory.recall(&digest, rule, &keys)
    {
        known.claims.check_time(now())?;
        return Ok(known);
    }
    let token = Compact::parse(text)?;
    token.claims().check(rule, now())?;
    let mut keys = source.keys().await.ok_or(TokenError::NoKeys)?;
    if let Err(error) = keys.verify(&token) {
        // An issuer that has changed its keys since names one that is not known.
        let newer = if error == TokenError::NoKey { source.newer_than(&keys).await } else { None };
        keys = newer.ok_or(error)?;
        keys.verify(&token)?;
    }
    let verified = Rc::new(Verified::new(token, rule, keys));
    memory.remember(digest, verified.clone());
    Ok(verified)
}

/// The rules for what is sent to a target, the oldest policy's first.
fn rules_of<'a>(worker: &Worker, snapshot: &'a Snapshot, target: &Target) -> Vec<&'a Arc<TokenRule>> {
    let found = at_place(worker, target, |place| place.authentication(snapshot));
    found.into_iter().flat_map(|policy| &policy.rules).collect()
}

/// Fetches keys before anybody needs them: those of the rules that are in force here.
pub(crate) async fn follow(shared: &Shared) {
    let mut config = shared.config.clone();
    loop {
        let snapshot = config.borrow_and_update().snapshot.clone();
        shared.keys.keep(rules_here(shared, &snapshot).into_iter().map(|rule| &**rule));
        if config.changed().await.is_err() {
            // The last good configuration stays in force.
            return std::future::pending().await;
        }
    }
}

fn rules_here<'a>(shared: &Shared, snapshot: &'a Snapshot) -> Vec<&'a Arc<TokenRule>> {
    let (policies, l7) = (snapshot.policies(), snapshot.l7());
    if !policies.has_request_authentication() {
        return Vec::new();
    }
    let own = &shared.own.gateway;
    let waypoint = l7.waypoints().iter().find(|waypoint| own.is(waypoint));
    let is_served = |service: &Arc<Service>| l7.waypoint_of(service).is_some_and(|by| own.is(by));
    let is_here = |target: &PolicyTarget| match target {
        PolicyTarget::Gateway(name) => *name.namespace == *own.namespace && *name.name == *own.name,
        PolicyTarget::GatewayClass(class) => waypoint.is_some_and(|waypoint| waypoint.class == *class),
        PolicyTarget::Service(name) => snapshot.service(&name.namespace, &name.name).is_some_and(is_served),
        PolicyTarget::ServiceEntry(name) => {
            let mut hosts = snapshot.services().filter(|service| service.is_of_entry(&name.namespace, &name.name));
            hosts.any(is_served)
        }
    };
    let targeted = policies.targeted_authentication().iter().filter(|policy| policy.targets.iter().any(is_here));
    let pod = shared.own.workload(snapshot).map(|workload| &**workload);
    let selecting = policies.authentication_for_gateway(&own.namespace, &own.name, pod);
    let all = targeted.map(|targeted| &targeted.policy).chain(selecting);
    all.flat_map(|policy: &Arc<RequestAuthentication>| &policy.rules).collect()
}

fn sha256(text: &str) -> verified::Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let mut octets = verified::Digest::default();
    octets.copy_from_slice(digest.as_ref());
    octets
}

fn now() -> Moment {
    // A clock before 1970 is wrong, and every token that has a beginning says so.
    Moment(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())
}
