//! Conditions, as the status of objects has them.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// One condition that an object is in, or is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) kind: &'static str,
    /// None where it cannot be known.
    pub(crate) holds: Option<bool>,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Condition {
    /// One that holds, and says by its reason all that there is to say.
    pub(crate) fn holds(kind: &'static str, reason: &'static str) -> Self {
        Self { kind, holds: Some(true), reason, message: String::new() }
    }

    /// One that does not hold, and why.
    pub(crate) fn fails(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(false), reason, message: message.into() }
    }
}

/// The conditions as they are written: what holds as before keeps the time since when it does.
pub(crate) fn written(conditions: &[Condition], before: &Value, generation: Option<i64>) -> Value {
    let known = before.as_array().map(Vec::as_slice).unwrap_or_default();
    let write = |condition: &Condition| {
        let status = match condition.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let same = |known: &&Value| known["type"] == condition.kind && known["status"] == status;
        let since = known.iter().find(same).and_then(|known| known["lastTransitionTime"].as_str());
        let now = || format!("{:.0}", Timestamp::now());
        json!({
            "type": condition.kind,
            "status": status,
            "reason": condition.reason,
            "message": condition.message,
            "observedGeneration": generation.unwrap_or(0),
            "lastTransitionTime": since.map_or_else(now, str::to_owned),
        })
    };
    conditions.iter().map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_change_is_that_of_the_change() {
        let accepted = Condition::holds("Accepted", "Accepted");
        let old = json!([{"type": "Accepted", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]);
        let same = written(std::slice::from_ref(&accepted), &old, Some(2));
        assert_eq!(same[0]["lastTransitionTime"], "2020-01-01T00:00:00Z");
        assert_eq!((&same[0]["observedGeneration"], &same[0]["status"]), (&json!(2), &json!("True")));
        let other = written(&[Condition::fails("Accepted", "Invalid", "no")], &old, Some(2));
        let since = other[0]["lastTransitionTime"].as_str().expect("a time");
        assert!(since > "2026" && since.len() == "2020-01-01T00:00:00Z".len(), "{since}");
    }
}
