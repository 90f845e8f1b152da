//! How ListenerSets are: whether their Gateways take them, and each of their listeners.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, GroupVersionKind, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use mesh_config::{Config, Key, ListenerSetStatus};
use serde_json::{Value, json};

use super::Gateways;
use super::condition::{Condition, written};
use super::object::{GatewayObject, gateways as gateway_kind};
use super::{controller, routes, status};

const GROUP: &str = "gateway.networking.k8s.io";
const KIND: &str = "ListenerSet";
/// Who writes it.
const MANAGER: &str = "mesh-control-status";

type SetObject = kube::api::Object<Value, Value>;

/// Follows ListenerSets, their Gateways and what is found of them, until dropped.
pub(super) async fn follow(gateways: &Arc<Gateways>) {
    let api: Api<SetObject> = Api::all_with(gateways.client.clone(), &resource());
    let parents: Api<GatewayObject> = Api::all_with(gateways.client.clone(), &gateway_kind());
    let known = Arc::clone(gateways);
    let controller = Controller::new_with(api, watcher::Config::default(), resource()).watches_with(
        parents,
        gateway_kind(),
        watcher::Config::default(),
        move |gateway| sets_of(&known, &gateway),
    );
    controller::statuses(gateways, (KIND, controller), reconcile, Arc::clone(gateways)).await;
}

fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", KIND))
}

/// The sets that name a Gateway.
fn sets_of(gateways: &Gateways, gateway: &GatewayObject) -> Vec<ObjectRef<SetObject>> {
    let key: Key = (gateway.namespace().unwrap_or_default().into(), gateway.name_any().into());
    let config = gateways.config.borrow();
    let sets = config.statuses.listener_sets.iter().filter(|(_, set)| set.gateway == key);
    sets.map(|((namespace, name), _)| ObjectRef::new_with(name, resource()).within(namespace)).collect()
}

/// Writes the status, if it is another than before.
async fn reconcile(set: Arc<SetObject>, gateways: Arc<Gateways>) -> Result<Action, kube::Error> {
    let done = Ok(Action::await_change());
    let config = gateways.config.borrow().clone();
    let (namespace, name) = (set.namespace().unwrap_or_default(), set.name_any());
    let Some(known) = config.statuses.listener_sets.get(&(namespace.as_str().into(), name.as_str().into())) else {
        return done;
    };
    if gateways.classes.role(&known.class).is_none() {
        return done;
    }
    let (at, gateway) = &known.gateway;
    let parents: Api<GatewayObject> = Api::namespaced_with(gateways.client.clone(), at, &gateway_kind());
    let parent = parents.get_opt(gateway).await?.and_then(|gateway| gateway.status).unwrap_or_default();
    let before = set.status.clone().unwrap_or_default();
    let Some(status) = said(&set, known, &config, &parent, &before) else { return done };
    if before["conditions"] == status["conditions"] && before["listeners"] == status["listeners"] {
        return done;
    }
    let object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "status": status,
    });
    let api: Api<SetObject> = Api::namespaced_with(gateways.client.clone(), &namespace, &resource());
    api.patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await?;
    done
}

/// All that is to be said, where its Gateway's status is that; none while that version of the set is not known yet.
fn said(set: &SetObject, known: &ListenerSetStatus, config: &Config, gateway: &Value, before: &Value) -> Option<Value> {
    let generation = set.metadata.generation;
    if known.generation != generation {
        let name = (set.namespace().unwrap_or_default(), set.name_any());
        let flaw = routes::flaw(config, KIND, &name)?;
        let conditions =
            [Condition::fails("Accepted", "Invalid", &*flaw), Condition::fails("Programmed", "Invalid", flaw)];
        let conditions = written(&conditions, &before["conditions"], generation);
        return Some(json!({"conditions": conditions, "listeners": before["listeners"]}));
    }
    let parent = of_gateway(gateway);
    let accepted = match &known.refused {
        Some(refusal) => Condition::fails("Accepted", refusal.reason, refusal.message.as_str()),
        None if known.is_accepted() => status::by_listeners(&known.listeners),
        None => {
            let faults = known.listeners.iter().find_map(|listener| {
                listener.refused.as_ref().or(listener.conflict.as_ref()).or(listener.unresolved.as_ref())
            });
            let message = faults.map(|refusal| refusal.message.clone()).unwrap_or_default();
            Condition::fails("Accepted", "ListenersNotValid", message)
        }
    };
    let programmed = match accepted.holds {
        Some(true) => parent.clone(),
        _ => Condition { kind: "Programmed", ..accepted.clone() },
    };
    Some(json!({
        "conditions": written(&[accepted, programmed], &before["conditions"], generation),
        "listeners": status::listeners(&known.listeners, &parent, &before["listeners"], generation),
    }))
}

/// Whether the Gateway is programmed, by what is said of it.
fn of_gateway(status: &Value) -> Condition {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let programmed = conditions.find(|condition| condition["type"] == "Programmed");
    match programmed {
        Some(condition) if condition["status"] == "True" => Condition::holds("Programmed", "Programmed"),
        other => {
            let message =
                other.and_then(|condition| condition["message"].as_str()).unwrap_or("its Gateway is not programmed");
            Condition::fails("Programmed", "Pending", message)
        }
    }
}
