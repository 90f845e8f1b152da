//! Whoever is told of the objects in force translates them to the same snapshot as who reads the manifests.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use mesh_config::{Config, LiveObjects, ObjectName, Options, load};
use mesh_core::ordered::Named as _;

fn serving() -> Options {
    Options { served: true, ..Options::default() }
}

/// What somebody makes of it who is told for the first time.
fn told(config: &Config) -> std::sync::Arc<Config> {
    let mut live = LiveObjects::new(Options::default());
    for served in config.served.iter() {
        let name = ObjectName::of_path(served.path()).unwrap();
        assert_eq!(name.path(), served.path());
        live.take(&name, &served.source.object, served.source.refused.as_deref()).unwrap();
    }
    live.publish()
}

#[test]
fn what_is_served_means_what_the_manifests_mean() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut objects = 0;
    for case in fs::read_dir(fixtures).unwrap() {
        let case = case.unwrap().path();
        let config = load(&case, &serving()).unwrap();
        assert_eq!(told(&config).snapshot, config.snapshot, "{}", case.display());
        assert!(config.served.iter().is_sorted_by_key(|served| served.key().1.to_owned()));
        objects += config.served.iter().len();
    }
    assert!(objects > 250, "{objects}");
}

#[test]
fn of_a_secret_nothing_is_served() {
    let gateways = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/gateways");
    let options = Options { credentials: mesh_config::Credentials::Everybodys, ..serving() };
    let config = load(&gateways, &options).unwrap();
    assert!(!config.named.is_empty());
    for served in config.served.iter() {
        assert!(!served.path().contains("Secret"), "{}", served.path());
        assert!(!served.source.object.contains("tls.key") && !served.source.object.contains("\"kind\":\"Secret\""));
    }
}

#[test]
fn an_object_is_served_without_what_says_nothing_here() {
    let mut live = LiveObjects::new(serving());
    let name = ObjectName::of_path("/Pod/shop/cart").unwrap();
    let pod = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "cart", "namespace": "shop", "uid": "u-1", "labels": {"app": "cart"},
            "annotations": {"note": "long"}, "resourceVersion": "17",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-1", "uid": "u-0", "controller": true}],
        },
        "spec": {
            "nodeName": "a", "serviceAccountName": "cart", "volumes": [{"name": "v"}],
            "containers": [{"name": "c", "image": "i", "env": [{"name": "PASSWORD", "value": "secret"}],
                "livenessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 3}}],
        },
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [
            {"type": "Initialized", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]},
    });
    live.apply(name, pod);
    let config = live.publish();
    let served = config.served.iter().next().unwrap();
    let expected = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"cart","namespace":"shop","uid":"u-1","labels":{"app":"cart"},"ownerReferences":[{"kind":"ReplicaSet","name":"cart-1","controller":true}]},"spec":{"nodeName":"a","serviceAccountName":"cart","containers":[{"name":"c","livenessProbe":{"httpGet":{"port":8080}}}]},"status":{"podIPs":[{"ip":"10.0.0.1"}],"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
    assert_eq!(&*served.source.object, expected);
}

#[test]
fn who_is_told_late_has_the_last_good_version_and_its_findings_too() {
    let mut live = LiveObjects::new(serving());
    let name = ObjectName::of_path("security.istio.io/AuthorizationPolicy/shop/p").unwrap();
    let policy = |action: &str| {
        serde_json::json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"action": action},
        })
    };
    live.apply(name.clone(), policy("ALLOW"));
    assert_eq!(live.publish().generation, 1);
    live.apply(name.clone(), policy("PERHAPS"));
    let config = live.publish();
    let late = told(&config);
    assert_eq!(late.snapshot, config.snapshot);
    assert_eq!(late.findings, config.findings);
    assert_eq!(late.findings.len(), 2, "{:?}", late.findings);
    // Where no good version is known, the strictest stands in at both.
    let mut live = LiveObjects::new(serving());
    live.apply(name, policy("PERHAPS"));
    let config = live.publish();
    assert_eq!((&told(&config).snapshot, &told(&config).findings), (&config.snapshot, &config.findings));
}
