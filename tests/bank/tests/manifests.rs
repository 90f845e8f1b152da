//! The manifests and the services as data say the same.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::Path;

use mesh_bank::{NAMESPACE, PORT, Service};
use serde_json::Value;

fn documents() -> Vec<Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let mut documents = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        documents.extend(serde_saphyr::from_multiple::<Value>(&text).unwrap());
    }
    documents
}

fn named<'a>(documents: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = documents.iter().find(|d| d["kind"] == kind && d["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn each_service_is_deployed_under_its_own_name_and_account() {
    let documents = documents();
    for service in Service::ALL {
        let name = service.name();
        let pod = &named(&documents, "Deployment", name)["spec"]["template"];
        assert_eq!(pod["spec"]["serviceAccountName"], name);
        assert_eq!(pod["metadata"]["labels"]["app"], name);
        assert_eq!(pod["spec"]["containers"][0]["args"], serde_json::json!(["serve", name]));
        named(&documents, "ServiceAccount", name);
        let service = &named(&documents, "Service", name)["spec"];
        assert_eq!(service["selector"]["app"], name);
        assert_eq!(service["ports"][0]["port"], PORT);
    }
}

#[test]
fn policies_let_in_exactly_the_callers() {
    let documents = documents();
    for service in Service::ALL {
        let policy = &named(&documents, "AuthorizationPolicy", service.name())["spec"];
        assert_eq!(policy["selector"]["matchLabels"]["app"], service.name());
        let principals = policy["rules"][0]["from"][0]["source"]["principals"].as_array().unwrap();
        let allowed: BTreeSet<_> = principals.iter().map(|p| p.as_str().unwrap().to_owned()).collect();
        let callers = service.callers().iter().map(|caller| format!("cluster.local/ns/{NAMESPACE}/sa/{caller}"));
        assert_eq!(allowed, callers.collect(), "{service}");
    }
    let policies = documents.iter().filter(|d| d["kind"] == "AuthorizationPolicy").count();
    assert_eq!(policies, Service::ALL.len() + 1, "and one that allows nothing");
}
