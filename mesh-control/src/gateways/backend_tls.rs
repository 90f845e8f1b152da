//! How BackendTLSPolicies are: at each Gateway that sends something to their Services, whether they are in force, and whether the
//! authorities that they name are there.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, GroupVersionKind, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use mesh_config::{BackendTlsStatus, Config, Key, Refusal};
use serde_json::{Value, json};

use super::Gateways;
use super::condition::{Condition, written};
use super::object::CONTROLLER;
use super::{controller, routes};

const GROUP: &str = "gateway.networking.k8s.io";
const KIND: &str = "BackendTLSPolicy";
/// Gateways that a status tells of, all controllers' together: the API's own limit.
const MAX_ANCESTORS: usize = 16;

type PolicyObject = kube::api::Object<Value, Value>;

/// Follows the policies, and what is found of them, until dropped.
pub(super) async fn follow(gateways: &Arc<Gateways>) {
    let api: Api<PolicyObject> = Api::all_with(gateways.client.clone(), &resource());
    let controller = Controller::new_with(api, watcher::Config::default(), resource());
    controller::statuses(gateways, (KIND, controller), reconcile, Arc::clone(gateways)).await;
}

fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", KIND))
}

async fn reconcile(policy: Arc<PolicyObject>, gateways: Arc<Gateways>) -> Result<Action, kube::Error> {
    let done = Ok(Action::await_change());
    let nothing = Value::Null;
    let before = &policy.status.as_ref().unwrap_or(&nothing)["ancestors"];
    let config = gateways.config.borrow().clone();
    let is_ours = |(namespace, name): &Key| {
        let ingress = config.statuses.gateways.get(&(Arc::clone(namespace), Arc::clone(name)));
        // A Gateway that is no gateway is a waypoint.
        ingress.is_none_or(|status| gateways.classes.role(&status.class).is_some())
    };
    let Some(ancestors) = ancestors(&policy, &config, before, is_ours) else { return done };
    if *before == ancestors || before.is_null() && ancestors == json!([]) {
        return done;
    }
    // The list is one value: what others wrote meanwhile must not be lost.
    let patch = json!({"metadata": {"resourceVersion": policy.resource_version()}, "status": {"ancestors": ancestors}});
    let namespace = policy.namespace().unwrap_or_default();
    let api: Api<PolicyObject> = Api::namespaced_with(gateways.client.clone(), &namespace, &resource());
    api.patch_status(&policy.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    done
}

/// All that is to be said, with what other controllers say; none while that version of the policy is not known yet.
fn ancestors(policy: &PolicyObject, config: &Config, before: &Value, is_ours: impl Fn(&Key) -> bool) -> Option<Value> {
    let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
    let known = config.statuses.backend_tls.get(&(namespace.as_str().into(), name.as_str().into()))?;
    let generation = policy.metadata.generation;
    let conditions = match known.generation == generation {
        true => conditions(known),
        false => invalid(routes::flaw(config, KIND, &(namespace, name))?),
    };
    let said = || before.as_array().into_iter().flatten();
    let others: Vec<&Value> = said().filter(|entry| entry["controllerName"] != CONTROLLER).collect();
    let room = MAX_ANCESTORS.saturating_sub(others.len());
    let entry = |(namespace, name): &Key| {
        let reference = json!({"group": GROUP, "kind": "Gateway", "namespace": &**namespace, "name": &**name});
        let same = |entry: &&Value| entry["controllerName"] == CONTROLLER && entry["ancestorRef"] == reference;
        let conditions =
            written(&conditions, said().find(same).map_or(&Value::Null, |it| &it["conditions"]), generation);
        json!({"ancestorRef": reference, "controllerName": CONTROLLER, "conditions": conditions})
    };
    let ours: Vec<Value> = known.gateways.iter().filter(|key| is_ours(key)).take(room).map(entry).collect();
    Some(others.into_iter().cloned().chain(ours).collect())
}

fn conditions(known: &BackendTlsStatus) -> [Condition; 2] {
    let condition = |kind, holds, fails: &Option<Refusal>| match fails {
        Some(refusal) => Condition::fails(kind, refusal.reason, refusal.message.as_str()),
        None => Condition::holds(kind, holds),
    };
    [condition("Accepted", "Accepted", &known.refused), condition("ResolvedRefs", "ResolvedRefs", &known.unresolved)]
}

/// Of a version that cannot be read.
fn invalid(flaw: String) -> [Condition; 2] {
    [Condition::fails("Accepted", "Invalid", flaw), Condition::holds("ResolvedRefs", "ResolvedRefs")]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mesh_config::Options;

    use super::*;

    const MANIFESTS: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop, generation: 1}
spec: {gatewayClassName: mesh, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop, generation: 1}
spec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: cart, port: 443}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: cart, namespace: shop, generation: 2}
spec: {targetRefs: [{group: '', kind: Service, name: cart}], validation: VALIDATION}
";

    fn policy(generation: i64) -> PolicyObject {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": KIND,
            "metadata": {"name": "cart", "namespace": "shop", "generation": generation}, "spec": {},
        });
        serde_json::from_value(object).unwrap()
    }

    fn config(validation: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("all.yaml"), MANIFESTS.replace("VALIDATION", validation)).unwrap();
        let options =
            Options { statuses: true, credentials: mesh_config::Credentials::Everybodys, ..Options::default() };
        mesh_config::load(Path::new(dir.path()), &options).unwrap()
    }

    fn said(config: &Config, generation: i64, before: &Value) -> Option<Value> {
        ancestors(&policy(generation), config, before, |_| true)
    }

    #[test]
    fn a_policy_is_told_of_at_the_gateways_that_send_to_its_services() {
        let config = config("{wellKnownCACertificates: System, hostname: cart.test}");
        let said_of = said(&config, 2, &Value::Null).unwrap();
        assert_eq!(said_of.as_array().unwrap().len(), 1);
        let entry = &said_of[0];
        assert_eq!((&entry["ancestorRef"]["name"], &entry["controllerName"]), (&json!("edge"), &json!(CONTROLLER)));
        for (place, kind) in ["Accepted", "ResolvedRefs"].into_iter().enumerate() {
            let condition = &entry["conditions"][place];
            assert_eq!((&condition["type"], &condition["status"]), (&json!(kind), &json!("True")), "{entry}");
            assert_eq!(condition["observedGeneration"], 2);
        }
        assert_eq!(said(&config, 3, &Value::Null), None, "a version that was not read yet");
        assert_eq!(said(&config, 2, &said_of).unwrap(), said_of, "nothing is written again");
        let none = ancestors(&policy(2), &config, &said_of, |_| false);
        assert_eq!(none, Some(json!([])), "another controller's Gateway is not told of");
    }

    #[test]
    fn authorities_that_are_not_there_are_told_of() {
        for (reference, reason) in [
            ("{group: '', kind: ConfigMap, name: none}", "InvalidCACertificateRef"),
            ("{group: '', kind: Secret, name: none}", "InvalidKind"),
        ] {
            let config = config(&format!("{{caCertificateRefs: [{reference}], hostname: cart.test}}"));
            let said = said(&config, 2, &Value::Null).unwrap();
            let reasons = [0, 1].map(|place| said[0]["conditions"][place]["reason"].as_str().unwrap());
            assert_eq!(reasons, ["NoValidCACertificate", reason], "{said}");
        }
    }

    #[test]
    fn what_other_controllers_say_stays_and_leaves_room_for_no_more_than_the_api_allows() {
        let config = config("{wellKnownCACertificates: System, hostname: cart.test}");
        let others = |count: usize| -> Value {
            let entry =
                |place: usize| json!({"controllerName": "other.test/one", "ancestorRef": {"name": place.to_string()}});
            (0..count).map(entry).collect()
        };
        for (count, all) in [(2, 3), (16, 16)] {
            let said = said(&config, 2, &others(count)).unwrap();
            assert_eq!(said.as_array().unwrap().len(), all);
            assert_eq!(said[0], others(count)[0]);
        }
    }

    #[test]
    fn a_version_that_cannot_be_read_is_invalid() {
        let config = config("{wellKnownCACertificates: Nobody, hostname: cart.test}");
        let said = said(&config, 2, &Value::Null).unwrap();
        let accepted = &said[0]["conditions"][0];
        assert_eq!((&accepted["reason"], &accepted["status"]), (&json!("Invalid"), &json!("False")), "{said}");
        assert!(accepted["message"].as_str().unwrap().starts_with("spec.validation"), "{said}");
    }
}
