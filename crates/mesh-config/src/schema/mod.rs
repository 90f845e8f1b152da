//! CustomResourceDefinitions of Istio's kinds and our own, from the types that they are read into.
//!
//! With them the API server itself names a field that is not known, and `kubectl explain` says what each is for.

mod structural;

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::config::Options;
use crate::istio;
use crate::kind::read_kinds;
use crate::own;

/// A kind, beyond what its types say.
struct Definition {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    /// What it is for.
    description: &'static str,
    /// Columns of `kubectl get`: title and path.
    columns: &'static [(&'static str, &'static str)],
    spec: fn(&mut SchemaGenerator) -> Schema,
}

const DEFINITIONS: [Definition; 11] = [
    Definition {
        group: "networking.istio.io",
        kind: "VirtualService",
        plural: "virtualservices",
        short_names: &["vs"],
        description: "Where requests for hosts go, and what becomes of them on their way.",
        columns: &[("Gateways", ".spec.gateways"), ("Hosts", ".spec.hosts")],
        spec: istio::schema::virtual_service,
    },
    Definition {
        group: "networking.istio.io",
        kind: "DestinationRule",
        plural: "destinationrules",
        short_names: &["dr"],
        description: "How a Service is talked to: TLS, balancing, limits, subsets.",
        columns: &[("Host", ".spec.host")],
        spec: istio::schema::destination_rule,
    },
    Definition {
        group: "networking.istio.io",
        kind: "Gateway",
        plural: "gateways",
        short_names: &["gw"],
        description: "What gateways open for clients outside the mesh.",
        columns: &[],
        spec: istio::schema::gateway,
    },
    Definition {
        group: "networking.istio.io",
        kind: "ServiceEntry",
        plural: "serviceentries",
        short_names: &["se"],
        description: "Hosts that are no Services of the cluster, and where they are.",
        columns: &[("Hosts", ".spec.hosts"), ("Location", ".spec.location"), ("Resolution", ".spec.resolution")],
        spec: istio::schema::service_entry,
    },
    Definition {
        group: "networking.istio.io",
        kind: "WorkloadEntry",
        plural: "workloadentries",
        short_names: &["we"],
        description: "An endpoint that is no Pod, for ServiceEntries that select it.",
        columns: &[("Address", ".spec.address")],
        spec: istio::schema::workload_entry,
    },
    Definition {
        group: "security.istio.io",
        kind: "AuthorizationPolicy",
        plural: "authorizationpolicies",
        short_names: &["ap"],
        description: "Who may call a workload.",
        columns: &[("Action", ".spec.action")],
        spec: istio::schema::authorization_policy,
    },
    Definition {
        group: "security.istio.io",
        kind: "PeerAuthentication",
        plural: "peerauthentications",
        short_names: &["pa"],
        description: "Whether a workload takes connections without mutual TLS.",
        columns: &[("Mode", ".spec.mtls.mode")],
        spec: istio::schema::peer_authentication,
    },
    Definition {
        group: "security.istio.io",
        kind: "RequestAuthentication",
        plural: "requestauthentications",
        short_names: &["ra"],
        description: "Whose tokens are believed at a waypoint or a gateway.",
        columns: &[],
        spec: istio::schema::request_authentication,
    },
    Definition {
        group: "telemetry.istio.io",
        kind: "Telemetry",
        plural: "telemetries",
        short_names: &["telemetry"],
        description: "Which requests are logged and traced.",
        columns: &[],
        spec: istio::schema::telemetry,
    },
    Definition {
        group: "networking.istio.io",
        kind: "EnvoyFilter",
        plural: "envoyfilters",
        short_names: &[],
        description: "Local rate limits in Envoy's words; no other patch is honoured.",
        columns: &[],
        spec: istio::schema::envoy_filter,
    },
    Definition {
        group: "policy.mesh.dev",
        kind: "RateLimitPolicy",
        plural: "ratelimitpolicies",
        short_names: &["rlp"],
        description: "How many requests may pass, by what they are and by whom they are sent.",
        columns: &[],
        spec: own::schema::rate_limit_policy,
    },
];

/// Every definition, with the name of its plural.
#[must_use]
pub fn definitions() -> Vec<(&'static str, Value)> {
    DEFINITIONS.iter().map(|definition| (definition.plural, definition.manifest())).collect()
}

impl Definition {
    fn manifest(&self) -> Value {
        let known = read_kinds(&Options::default());
        let versions = known.into_iter().find(|known| known.group == self.group && known.kind == self.kind);
        let versions = versions.map(|known| known.versions).unwrap_or_default();
        let served = versions.iter().enumerate().map(|(index, version)| self.version(version, index == 0));
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            // By which `mesh-ctl` tells them from Istio's own.
            "metadata": {
                "name": format!("{}.{}", self.plural, self.group),
                "labels": {"app.kubernetes.io/part-of": "mesh"},
            },
            "spec": {
                "group": self.group,
                "scope": "Namespaced",
                "names": {
                    "kind": self.kind,
                    "listKind": format!("{}List", self.kind),
                    "plural": self.plural,
                    "singular": self.kind.to_lowercase(),
                    "shortNames": self.short_names,
                    "categories": if self.is_istios() { ["istio-io"] } else { ["mesh"] },
                },
                "versions": served.collect::<Vec<_>>(),
            },
        })
    }

    fn is_istios(&self) -> bool {
        self.group.ends_with(".istio.io")
    }

    fn version(&self, name: &str, stored: bool) -> Value {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let mut spec = structural::structural((self.spec)(&mut settings.into_generator()).to_value());
        spec["description"] =
            json!(if self.is_istios() { "What it asks for, in Istio's words." } else { "What it asks for." });
        let columns = self.columns.iter();
        let columns = columns.map(|(title, path)| json!({"name": title, "type": "string", "jsonPath": path}));
        let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"});
        json!({
            "name": name,
            "served": true,
            "storage": stored,
            "subresources": {"status": {}},
            "additionalPrinterColumns": columns.chain([age]).collect::<Vec<_>>(),
            "schema": {"openAPIV3Schema": {
                "type": "object",
                "description": self.description,
                "properties": {
                    "spec": spec,
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                },
            }},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `look` with each schema and where it stands.
    fn walk(schema: &Value, at: &str, look: &mut impl FnMut(&str, &Value)) {
        look(at, schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(property, &format!("{at}.{name}"), look);
        }
        for inner in ["items", "additionalProperties"] {
            if schema.get(inner).is_some() {
                walk(&schema[inner], &format!("{at}[]"), look);
            }
        }
    }

    #[test]
    fn every_field_has_a_type_and_a_description() {
        for (name, definition) in definitions() {
            let versions = definition["spec"]["versions"].as_array().expect("versions");
            assert!(!versions.is_empty(), "{name} is read in no version");
            assert_eq!(versions.iter().filter(|version| version["storage"] == true).count(), 1, "{name}");
            let schema = &versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            walk(schema, name, &mut |at, schema| {
                let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
                assert!(open || schema["type"].is_string(), "{at} has no type: {schema}");
                assert!(at.ends_with(']') || schema["description"].is_string(), "{at} has no description");
                for word in ["$ref", "anyOf", "oneOf", "allOf", "const", "$schema"] {
                    assert!(schema.get(word).is_none(), "{at} has {word}: {schema}");
                }
            });
        }
    }

    #[test]
    fn words_of_an_enumeration_are_listed() {
        let all = definitions();
        let words = |name: &str, path: &str| {
            let (_, definition) = all.iter().find(|(plural, _)| *plural == name).expect("the definition");
            let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            let found = path.split('.').fold(spec, |schema, field| &schema["properties"][field]);
            let mut words: Vec<String> = serde_json::from_value(found["enum"].clone()).expect("words");
            words.sort_unstable();
            words
        };
        assert_eq!(words("authorizationpolicies", "action"), ["ALLOW", "AUDIT", "CUSTOM", "DENY"]);
        let modes = words("destinationrules", "trafficPolicy.tls.mode");
        assert_eq!(modes, ["DISABLE", "ISTIO_MUTUAL", "MUTUAL", "SIMPLE"]);
    }
}
