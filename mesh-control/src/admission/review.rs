//! AdmissionReviews (admission.k8s.io/v1): the question and its answer.

use mesh_config::{Finding, Severity};
use serde::Deserialize;
use serde_json::{Value, json};

/// Warnings of one answer; kubectl prints each on a line.
const MAX_WARNINGS: usize = 16;

/// What the API server asks.
#[derive(Debug, Deserialize)]
struct Review {
    request: Request,
}

#[derive(Debug, Deserialize)]
struct Request {
    uid: String,
    /// Null where something is deleted.
    #[serde(default)]
    object: Value,
}

/// The answer to a question; none where it is no question.
pub(super) fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let Review { request } = serde_json::from_slice(question).ok()?;
    let findings = if request.object.is_null() { Vec::new() } else { mesh_config::review(request.object) };
    let (errors, others): (Vec<&Finding>, Vec<&Finding>) =
        findings.iter().partition(|finding| finding.severity == Severity::Error);
    let mut response = json!({"uid": request.uid, "allowed": errors.is_empty()});
    if !errors.is_empty() {
        let message = errors.iter().map(|finding| text(finding)).collect::<Vec<_>>().join("; ");
        tracing::info!(message, "object refused");
        response["status"] = json!({"code": 422, "reason": "Invalid", "message": message});
    }
    if !others.is_empty() {
        response["warnings"] = others.iter().take(MAX_WARNINGS).map(|finding| Value::from(text(finding))).collect();
    }
    serde_json::to_vec(&json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
        .ok()
}

/// Without the object's name: who applies it knows it.
fn text(finding: &Finding) -> String {
    let field = finding.field.as_deref().map_or_else(String::new, |field| format!(" {field}"));
    format!("{}{field}: {}. {}", finding.code, finding.message, finding.remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(spec: &Value) -> Value {
        let object = json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": spec,
        });
        let question = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1", "object": object}});
        let answer = answer(&serde_json::to_vec(&question).expect("a question")).expect("an answer");
        serde_json::from_slice(&answer).expect("JSON")
    }

    #[test]
    fn what_is_wrong_is_refused_with_code_field_and_remedy() {
        let answer = asked(&json!({"rules": [{"from": []}]}));
        assert_eq!((&answer["response"]["uid"], &answer["response"]["allowed"]), (&json!("u-1"), &json!(false)));
        let message = answer["response"]["status"]["message"].as_str().expect("a message");
        assert!(message.starts_with("MESH") && message.contains("spec.rules[0].from: an empty list"), "{message}");
        assert_eq!(asked(&json!({"action": "DENY", "rules": [{}]}))["response"]["allowed"], true);
    }

    #[test]
    fn what_is_no_question_has_no_answer() {
        assert_eq!(answer(b"{}"), None);
        assert_eq!(answer(b"hello"), None);
        let deleted = answer(br#"{"request": {"uid": "u", "object": null}}"#).expect("an answer");
        assert!(String::from_utf8_lossy(&deleted).contains("\"allowed\":true"));
    }
}
