//! The manifests and the catalogue say the same.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::Path;

use mesh_shop::catalogue;
use mesh_shop::catalogue::NAMESPACE;
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
fn each_workload_of_the_catalogue_is_deployed_so() {
    let documents = documents();
    for workload in catalogue() {
        let deployment = named(&documents, "Deployment", workload.name);
        let pod = &deployment["spec"]["template"];
        let container = &pod["spec"]["containers"][0];
        assert_eq!(pod["spec"]["serviceAccountName"], workload.service_account);
        assert_eq!(container["args"], serde_json::json!(workload.arguments()));
        assert_eq!(container["ports"][0]["containerPort"], workload.port);
        for (label, value) in workload.labels() {
            assert_eq!(pod["metadata"]["labels"][label], value, "{}", workload.name);
        }
        named(&documents, "ServiceAccount", workload.service_account);
        let service = named(&documents, "Service", workload.service);
        assert_eq!(service["spec"]["selector"]["app"], workload.service);
        let port = &service["spec"]["ports"][0];
        assert_eq!(port["port"], workload.port);
        assert_eq!(port["name"], workload.protocol.port_name());
        assert_eq!(port["targetPort"], container["ports"][0]["name"]);
    }
}

#[test]
fn nothing_is_deployed_that_the_catalogue_does_not_know() {
    let documents = documents();
    let deployed: BTreeSet<_> =
        documents.iter().filter(|d| d["kind"] == "Deployment").filter_map(|d| d["metadata"]["name"].as_str()).collect();
    let known: BTreeSet<_> = catalogue().iter().map(|w| w.name).collect();
    assert_eq!(deployed, known);
    for document in documents.iter().filter(|d| d["kind"] != "Namespace") {
        assert_eq!(document["metadata"]["namespace"], NAMESPACE);
    }
}
