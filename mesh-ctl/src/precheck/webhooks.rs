//! Admission webhooks that would be asked about the mesh's pods, and those that do not answer.

use kube::ResourceExt as _;
use kube::api::{DynamicObject, ListParams};
use mesh_admin::{Found, Requirement};
use serde_json::Value;

use super::requirement;
use crate::cluster::{Cluster, kind};

const NAME: &str = "webhooks";
/// Injectors of proxies, by the names of their webhooks' configurations.
const INJECTORS: [(&str, &str); 2] =
    [("istio-sidecar-injector", "Istio's sidecars"), ("linkerd-proxy-injector", "Linkerd's proxies")];

/// Those that refuse pods while nobody answers for them, and those that put proxies into pods.
pub(super) async fn look(cluster: &Cluster) -> anyhow::Result<Vec<Requirement>> {
    let mut told = Vec::new();
    for name in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let kind = kind("admissionregistration.k8s.io", "v1", name);
        let list = cluster.list(&kind, None, &ListParams::default()).await?;
        for configuration in list.iter().flat_map(|list| &list.items) {
            told.extend(injector(configuration));
            for service in strict_services(configuration) {
                told.extend(unanswered(cluster, &configuration.name_any(), &service).await?);
            }
        }
    }
    if told.is_empty() {
        told.push(requirement(
            NAME,
            Found::Ok,
            "none that would refuse or change the mesh's pods while it does not answer",
        ));
    }
    Ok(told)
}

fn injector(configuration: &DynamicObject) -> Option<Requirement> {
    let name = configuration.name_any();
    let (_, what) = INJECTORS.iter().find(|(injector, _)| name.starts_with(injector))?;
    let detail = format!(
        "{name} puts {what} into pods of labelled namespaces: such a pod does not join this mesh; take the label off first"
    );
    Some(requirement(NAME, Found::Warning, detail))
}

/// The Services (namespace, name) that are asked about every new pod, and without whose word there is none.
fn strict_services(configuration: &DynamicObject) -> Vec<(String, String)> {
    let webhooks = configuration.data["webhooks"].as_array();
    let strict = webhooks.into_iter().flatten().filter(|it| it["failurePolicy"] != "Ignore" && is_about_pods(it));
    let services = strict.filter_map(|it| {
        let service = it.pointer("/clientConfig/service")?;
        Some((service["namespace"].as_str()?.to_owned(), service["name"].as_str()?.to_owned()))
    });
    services.collect()
}

fn is_about_pods(webhook: &Value) -> bool {
    let has = |rule: &Value, field: &str, wanted: &[&str]| {
        rule[field].as_array().into_iter().flatten().any(|it| it.as_str().is_some_and(|it| wanted.contains(&it)))
    };
    let rules = webhook["rules"].as_array();
    rules.into_iter().flatten().any(|rule| {
        has(rule, "apiGroups", &["", "*"])
            && has(rule, "resources", &["pods", "*", "*/*"])
            && has(rule, "operations", &["CREATE", "*"])
    })
}

/// Told of where nobody stands behind the Service.
async fn unanswered(
    cluster: &Cluster,
    configuration: &str,
    (namespace, name): &(String, String),
) -> anyhow::Result<Option<Requirement>> {
    let slices = kind("discovery.k8s.io", "v1", "EndpointSlice");
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    let list = cluster.list(&slices, Some(namespace), &of_service).await?;
    let is_ready = |slice: &DynamicObject| {
        let endpoints = slice.data["endpoints"].as_array();
        endpoints.into_iter().flatten().any(|it| it.pointer("/conditions/ready") != Some(&Value::Bool(false)))
    };
    if list.iter().flat_map(|list| &list.items).any(is_ready) {
        return Ok(None);
    }
    let detail = format!(
        "{configuration} is asked about new pods, and nobody answers at {namespace}/{name}: pods are refused; start what it belongs to, \
         or delete the configuration"
    );
    Ok(Some(requirement(NAME, Found::Missing, detail)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_those_that_can_refuse_pods_count() {
        let service = json!({"service": {"namespace": "x", "name": "hook"}});
        let rules = |resource: &str| json!([{"apiGroups": [""], "resources": [resource], "operations": ["CREATE"]}]);
        let configuration = |resource: &str, policy: &str| -> DynamicObject {
            serde_json::from_value(json!({"metadata": {"name": "a"}, "webhooks": [
                {"failurePolicy": policy, "rules": rules(resource), "clientConfig": service},
            ]}))
            .unwrap()
        };
        assert_eq!(strict_services(&configuration("pods", "Fail")), [("x".to_owned(), "hook".to_owned())]);
        assert!(strict_services(&configuration("pods", "Ignore")).is_empty());
        assert!(strict_services(&configuration("secrets", "Fail")).is_empty());
    }
}
