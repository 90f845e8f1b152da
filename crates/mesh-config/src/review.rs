//! One object by itself, before it is in a cluster.

use serde_json::Value;

use crate::code::Code;
use crate::config::Options;
use crate::finding::{Finding, ObjectName};
use crate::live::LiveObjects;

/// What is to be said of an object by itself: errors, by which it would not be in force, and fields that are not honoured.
///
/// What depends on other objects is not asked: they may come later.
#[must_use]
pub fn review(object: Value) -> Vec<Finding> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (group, namespace) = (text("/apiVersion"), text("/metadata/namespace"));
    let name = ObjectName {
        group: group.split_once('/').map_or("", |(group, _)| group).into(),
        kind: text("/kind").into(),
        namespace: Some(namespace).filter(|namespace| !namespace.is_empty()).map(Into::into),
        name: text("/metadata/name").into(),
    };
    let mut alone = LiveObjects::new(Options::default());
    alone.apply(name.clone(), object);
    let mut findings = alone.findings_of(&name).to_vec();
    let translated = alone.publish();
    let by_itself = [Code::FieldNotHonoured, Code::NotEnforced, Code::ModeNotHonoured];
    findings.extend(translated.findings.iter().filter(|finding| by_itself.contains(&finding.code)).cloned());
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::code::Severity;

    fn virtual_service(http: Value) -> Value {
        json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"hosts": ["cart"], "http": [http]},
        })
    }

    #[test]
    fn errors_are_those_of_the_object_alone() {
        let to_nobody = virtual_service(json!({"route": [{"destination": {"host": "nobody"}}]}));
        assert_eq!(review(to_nobody), [], "the Service may come later");
        let wrong = virtual_service(json!({"timeout": "soon", "route": [{"destination": {"host": "cart"}}]}));
        let findings = review(wrong);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].severity, Severity::Error);
        assert_eq!(findings[0].field.as_deref(), Some("spec.http[0].timeout"));
    }

    #[test]
    fn fields_that_are_not_honoured_are_told() {
        let retries = json!({"attempts": 1, "retryRemoteLocalities": true});
        let findings =
            review(virtual_service(json!({"retries": retries, "route": [{"destination": {"host": "cart"}}]})));
        assert!(findings.iter().all(|finding| finding.severity < Severity::Error), "{findings:?}");
        assert!(findings.iter().any(|finding| finding.code == Code::FieldNotHonoured), "{findings:?}");
    }
}
