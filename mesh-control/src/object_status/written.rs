//! What an object's status says, as JSON.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_config::{Code, Finding, Severity};
use mesh_core::hosts::is_automatic;
use serde_json::{Value, json};

use crate::gateways::condition::{Condition, written};

/// The condition whether a generation is in force, as Istio calls it.
pub(super) const RECONCILED: &str = "Reconciled";
/// The condition whether a policy is attached to something that takes it, as Istio calls it.
const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";
/// How messages of that condition begin. It has no field for who writes it, and Istio's own control plane may be there, too.
const OURS: &str = "mesh.dev: ";
/// Findings that an object's status says.
const MAX_MESSAGES: usize = 16;
/// Octets of one.
const MAX_MESSAGE: usize = 1024;

/// What is to be said of an object.
pub(super) struct Said<'a> {
    /// Whether the generation is in force; none where that is not to be said yet.
    pub(super) reconciled: Option<Condition>,
    /// All that is found of it.
    pub(super) findings: &'a [&'a Finding],
    pub(super) generation: i64,
    /// How many targets the policy names.
    pub(super) targets: usize,
    /// The addresses that the mesh has given a ServiceEntry's hosts, each with its host.
    pub(super) addresses: Vec<(Arc<str>, IpAddr)>,
}

/// A generation that cannot be read.
pub(super) fn invalid(flaw: &Finding) -> Condition {
    let after = "; the last good version stays in force, or where there is none the strictest reading";
    Condition::fails(RECONCILED, "Invalid", shortened(&(flaw.detail() + after)))
}

/// Whether it is said already that this generation is in force.
pub(super) fn is_in_force(status: &Value, generation: i64) -> bool {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| {
        condition["type"] == RECONCILED
            && condition["status"] == "True"
            && condition["observedGeneration"] == generation
    })
}

/// The status as it is to be: what others say in it stays.
pub(super) fn status(before: &Value, said: &Said<'_>) -> Value {
    let mut status = before.as_object().cloned().unwrap_or_default();
    let known = || before["conditions"].as_array().into_iter().flatten();
    let taken = known().any(|known| is_of_others(known, said.generation));
    let accepted = accepted(said).filter(|_| !taken);
    let stays = |known: &&Value| match known["type"].as_str() {
        Some(RECONCILED) => said.reconciled.is_none(),
        Some(WAYPOINT_ACCEPTED) => accepted.is_none() && !is_ours(known),
        _ => true,
    };
    let ours: Vec<Condition> = said.reconciled.iter().chain(&accepted).cloned().collect();
    let ours = written(&ours, &before["conditions"], Some(said.generation));
    let all: Vec<Value> = known().filter(stays).chain(ours.as_array().into_iter().flatten()).cloned().collect();
    if !all.is_empty() || before.get("conditions").is_some() {
        status.insert("conditions".to_owned(), all.into());
    }
    let messages: Vec<Value> =
        said.findings.iter().take(MAX_MESSAGES).map(|finding| validation_message(finding)).collect();
    if !messages.is_empty() || before.get("validationMessages").is_some() {
        status.insert("validationMessages".to_owned(), messages.into());
    }
    let of_others = known_addresses(before).any(|known| !is_given(known));
    if !of_others && (!said.addresses.is_empty() || before.get("addresses").is_some()) {
        let given = said.addresses.iter().map(|(host, address)| json!({"value": address, "host": **host}));
        status.insert("addresses".to_owned(), given.collect());
    }
    status.insert("observedGeneration".to_owned(), said.generation.into());
    status.into()
}

fn known_addresses(status: &Value) -> impl Iterator<Item = &Value> {
    status["addresses"].as_array().into_iter().flatten()
}

/// Whether an address is the mesh's. Istio's own control plane gives hosts others, where it is there, too.
fn is_given(known: &Value) -> bool {
    known["value"].as_str().and_then(|text| text.parse().ok()).is_some_and(is_automatic)
}

/// Whether somebody takes the policy where it is attached; none of one that is attached to nothing.
fn accepted(said: &Said<'_>) -> Option<Condition> {
    let fails = |reason, why: &Finding| {
        Condition::fails(WAYPOINT_ACCEPTED, reason, shortened(&format!("{OURS}{}", why.detail())))
    };
    if said.targets == 0 {
        return None;
    }
    if let Some(flaw) = said.findings.iter().find(|finding| finding.code.breaks_objects()) {
        return Some(fails("Invalid", flaw));
    }
    let mut idle = said.findings.iter().filter(|finding| finding.code == Code::PolicyForWaypoint);
    let holds = |reason, message: String| Condition {
        message: shortened(&format!("{OURS}{message}")),
        ..Condition::holds(WAYPOINT_ACCEPTED, reason)
    };
    Some(match (idle.clone().count(), idle.next()) {
        (_, None) => holds("Accepted", "a waypoint or gateway takes it at each of its targets".to_owned()),
        (count, Some(why)) if count < said.targets => holds("PartiallyInvalid", why.detail()),
        (_, Some(why)) => fails("AncestorNotBound", why),
    })
}

/// Whether another control plane says of this generation who takes the policy: two would write without end.
fn is_of_others(condition: &Value, generation: i64) -> bool {
    condition["type"] == WAYPOINT_ACCEPTED && condition["observedGeneration"] == generation && !is_ours(condition)
}

fn is_ours(condition: &Value) -> bool {
    condition["message"].as_str().is_some_and(|message| message.starts_with(OURS))
}

/// As Istio's own analysis writes one.
fn validation_message(finding: &Finding) -> Value {
    let level = match finding.severity {
        Severity::Error => "ERROR",
        Severity::Warning => "WARNING",
        Severity::Info => "INFO",
    };
    json!({
        "type": {"code": finding.code.id(), "name": finding.code.title()},
        "level": level,
        "message": shortened(&finding.detail()),
    })
}

fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_MESSAGE)].to_owned()
}

#[cfg(test)]
mod tests {
    use mesh_config::Origin;

    use super::*;

    fn said<'a>(generation: i64, targets: usize, findings: &'a [&'a Finding]) -> Said<'a> {
        let holds = Condition { message: "in force".to_owned(), ..Condition::holds(RECONCILED, "Reconciled") };
        Said { reconciled: Some(holds), findings, generation, targets, addresses: Vec::new() }
    }

    fn idle() -> Finding {
        let origin = Origin::file(std::path::Path::new("a.yaml"));
        Finding::new(Code::PolicyForWaypoint, origin, "Service shop/cart has no waypoint").at("spec.targetRefs[0]")
    }

    fn accepted_of(status: &Value) -> Option<&Value> {
        status["conditions"].as_array()?.iter().find(|condition| condition["type"] == WAYPOINT_ACCEPTED)
    }

    #[test]
    fn what_others_say_stays_and_what_is_said_is_not_said_again() {
        let before = json!({
            "conditions": [{"type": "Theirs", "status": "True"}],
            "validationMessages": [{"level": "ERROR"}],
        });
        let first = status(&before, &said(3, 0, &[]));
        assert_eq!(first["conditions"][0]["type"], "Theirs");
        assert_eq!((&first["observedGeneration"], &first["validationMessages"]), (&json!(3), &json!([])));
        assert!(is_in_force(&first, 3) && !is_in_force(&first, 4), "{first}");
        assert_eq!(status(&first, &said(3, 0, &[])), first);
        assert_eq!(status(&first, &Said { reconciled: None, ..said(3, 0, &[]) }), first);
    }

    #[test]
    fn a_hosts_own_addresses_are_said_and_those_that_others_have_given_it_stay() {
        let given = |text: &str| Said { addresses: vec![("a.b".into(), text.parse().unwrap())], ..said(1, 0, &[]) };
        let first = status(&json!({}), &given("244.0.0.1"));
        assert_eq!(first["addresses"], json!([{"value": "244.0.0.1", "host": "a.b"}]));
        assert_eq!(status(&first, &given("244.0.0.2"))["addresses"][0]["value"], "244.0.0.2");
        assert_eq!(status(&first, &said(1, 0, &[]))["addresses"], json!([]));
        let theirs = json!({"addresses": [{"value": "240.240.0.1", "host": "a.b"}]});
        assert_eq!(status(&theirs, &given("244.0.0.1"))["addresses"], theirs["addresses"]);
        assert_eq!(status(&json!({}), &said(1, 0, &[])).get("addresses"), None);
    }

    #[test]
    fn a_policy_says_whether_somebody_takes_it_where_it_is_attached() {
        let idle = idle();
        for (targets, findings, expected) in [
            (1, &[][..], Some(("True", "Accepted"))),
            (2, &[&idle][..], Some(("True", "PartiallyInvalid"))),
            (1, &[&idle][..], Some(("False", "AncestorNotBound"))),
            (0, &[][..], None),
        ] {
            let status = status(&json!({}), &said(1, targets, findings));
            let found = accepted_of(&status).map(|it| (it["status"].as_str().unwrap(), it["reason"].as_str().unwrap()));
            assert_eq!(found, expected, "{status}");
        }
        let attached = status(&json!({}), &said(1, 1, &[]));
        assert_eq!(accepted_of(&status(&attached, &said(2, 0, &[]))), None);
    }

    #[test]
    fn another_control_planes_word_about_the_same_generation_stays() {
        let theirs = json!({"type": WAYPOINT_ACCEPTED, "status": "False", "message": "bound to nothing",
            "observedGeneration": 2});
        let before = json!({"conditions": [theirs]});
        assert_eq!(accepted_of(&status(&before, &said(2, 1, &[]))), Some(&before["conditions"][0]));
        assert_eq!(accepted_of(&status(&before, &said(2, 0, &[]))), Some(&before["conditions"][0]));
        // What was said of another generation is of no worth.
        let next = status(&before, &said(3, 1, &[]));
        assert_eq!(accepted_of(&next).unwrap()["status"], "True");
    }
}
