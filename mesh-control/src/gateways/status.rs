//! How a Gateway is: accepted, programmed, where it is reached, and each of its listeners. What is said of listeners is what
//! translation found, by which the proxies listen as well.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use mesh_config::{Key, ListenerStatus, Refusal};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Gateways;
use super::condition::{Condition, written};
use super::controller;
use super::deploy::Outcome;
use super::object::{GatewayObject, RequestedAddress, Role, gateways as kind, made_name};
use crate::kubernetes;

/// Who writes it.
const MANAGER: &str = "mesh-control-status";
/// The only protocol that waypoints speak.
const HBONE: &str = "HBONE";
/// Pause before what failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Follows Gateways, what runs for them and what is found of them, until dropped.
pub(super) async fn follow(gateways: &Arc<Gateways>) {
    let (controller, again) = controller::of_gateways(&gateways.client);
    let later = |_: Arc<GatewayObject>, _: &kube::Error, _: Arc<Gateways>| Action::requeue(TRY_AGAIN);
    let report = kubernetes::report(
        controller.run(reconcile, later, gateways.clone()),
        |gateway, error| tracing::warn!(%gateway, %error, "status of a Gateway not written; it is tried again"),
        |error| tracing::debug!(%error, "Gateways are not followed; it is tried again"),
    );
    tokio::join!(report, gateways.tell_of_statuses(again.clone()), tell_of_outcomes(gateways, again));
}

async fn tell_of_outcomes(gateways: &Gateways, again: mpsc::Sender<()>) {
    let mut outcomes = gateways.outcomes.changes();
    while outcomes.changed().await.is_ok() && again.send(()).await.is_ok() {}
}

/// Writes the status, if it is another than before.
async fn reconcile(gateway: Arc<GatewayObject>, gateways: Arc<Gateways>) -> Result<Action, kube::Error> {
    let done = Ok(Action::await_change());
    let Some(role) = gateways.classes.role(&gateway.spec.gateway_class_name) else { return done };
    let Some(outcome) = gateways.outcomes.of(&gateway) else { return done };
    let Some(found) = found(&gateways, &gateway, role) else { return done };
    let namespace = gateway.namespace().unwrap_or_default();
    let made = made_name((&gateway.name_any(), &gateway.spec.gateway_class_name), role);
    let deployments: Api<Deployment> = Api::namespaced(gateways.client.clone(), &namespace);
    let services: Api<Service> = Api::namespaced(gateways.client.clone(), &namespace);
    let run = Run {
        outcome,
        ready: deployments.get_opt(&made).await?.and_then(|made| made.status?.available_replicas).unwrap_or(0) > 0,
        addresses: services.get_opt(&made).await?.map(|service| addresses(&service)).unwrap_or_default(),
    };
    let before = gateway.status.clone().unwrap_or_default();
    let status = status(&gateway, role, &found, &run, &before);
    if !differs(&before, &status) {
        return done;
    }
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": gateway.name_any(), "namespace": namespace},
        "status": status,
    });
    let api: Api<GatewayObject> = Api::namespaced_with(gateways.client.clone(), &namespace, &kind());
    api.patch_status(&gateway.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await?;
    done
}

/// Where a Service is reached: where a load balancer answers for it, or inside the cluster where it asks for none.
fn addresses(service: &Service) -> Vec<Value> {
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer") {
        let balanced = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        let address = |kind: &str, value: &String| json!({"type": kind, "value": value});
        let each = balanced.into_iter().flatten().filter_map(|at| match (&at.ip, &at.hostname) {
            (Some(ip), _) => Some(address("IPAddress", ip)),
            (None, hostname) => hostname.as_ref().map(|name| address("Hostname", name)),
        });
        return each.collect();
    }
    let inside = spec.and_then(|spec| spec.cluster_ip.as_ref()).filter(|ip| *ip != "None");
    inside.iter().map(|ip| json!({"type": "IPAddress", "value": ip})).collect()
}

/// Whether what is to be said is not said already. What others say beside it is theirs.
fn differs(before: &Value, status: &Value) -> bool {
    status.as_object().into_iter().flatten().any(|(field, value)| before[field.as_str()] != *value)
}

/// What runs for a Gateway.
struct Run {
    outcome: Outcome,
    ready: bool,
    addresses: Vec<Value>,
}

/// What translation finds of a Gateway.
#[derive(Default)]
struct Found {
    listeners: Vec<ListenerStatus>,
    /// Which of its references that are no listener's lead nowhere.
    unresolved: Option<Refusal>,
    /// How many ListenerSets it has listeners of.
    sets: usize,
    /// Whether clients whose certificates nobody vouches for are let in.
    lets_others_in: bool,
}

/// What is found of it; none while that version of it is not known yet.
fn found(gateways: &Gateways, gateway: &GatewayObject, role: Role) -> Option<Found> {
    match role {
        Role::Waypoint => {
            let written = gateway.spec.listeners.iter();
            let listeners = written.map(|listener| of_waypoint(&listener.name, &listener.protocol)).collect();
            Some(Found { listeners, ..Found::default() })
        }
        Role::Ingress => {
            let config = gateways.config.borrow();
            let key: Key = (gateway.namespace().unwrap_or_default().into(), gateway.name_any().into());
            let known = config.statuses.gateways.get(&key)?;
            let sets = config.statuses.listener_sets.values();
            let sets = sets.filter(|set| set.gateway == key && set.is_accepted()).count();
            (known.generation == gateway.metadata.generation).then(|| Found {
                listeners: known.listeners.clone(),
                unresolved: known.unresolved.clone(),
                sets,
                lets_others_in: known.lets_others_in,
            })
        }
    }
}

/// A waypoint's listener. Routes of the mesh are attached to Services, and none to it.
fn of_waypoint(name: &str, protocol: &str) -> ListenerStatus {
    let message = || format!("listener {name} is of protocol {protocol}, and waypoints speak HBONE");
    ListenerStatus {
        name: name.to_owned(),
        kinds: Vec::new(),
        attached: 0,
        refused: (protocol != HBONE).then(|| Refusal { reason: "UnsupportedProtocol", message: message() }),
        conflict: None,
        unresolved: None,
    }
}

fn status(gateway: &GatewayObject, role: Role, found: &Found, run: &Run, before: &Value) -> Value {
    let generation = gateway.metadata.generation;
    let mut conditions = vec![accepted(gateway, role, &found.listeners), programmed(gateway, role, run)];
    let listeners = listeners(&found.listeners, &conditions[1], &before["listeners"], generation);
    if role == Role::Ingress {
        conditions.push(resolved(found));
    }
    if found.lets_others_in {
        let message = "some clients need no certificate that is vouched for: mode AllowInsecureFallback".to_owned();
        let insecure = Condition::holds("InsecureFrontendValidationMode", "ConfigurationChanged");
        conditions.push(Condition { message, ..insecure });
    }
    let mut status = json!({
        "addresses": run.addresses,
        "conditions": written(&conditions, &before["conditions"], generation),
        "listeners": listeners,
    });
    // Definitions of before ListenerSets do not know the field.
    if found.sets > 0 || !before["attachedListenerSets"].is_null() {
        status["attachedListenerSets"] = found.sets.into();
    }
    status
}

/// What is said of listeners, of a Gateway or a ListenerSet, where the Gateway is programmed or not.
pub(super) fn listeners(
    found: &[ListenerStatus],
    programmed: &Condition,
    before: &Value,
    generation: Option<i64>,
) -> Vec<Value> {
    let known = |name: &str| {
        let mut listeners = before.as_array().into_iter().flatten();
        listeners.find(|known| known["name"] == *name).map_or(&Value::Null, |known| &known["conditions"])
    };
    let kind = |kind: &&str| json!({"group": "gateway.networking.k8s.io", "kind": kind});
    let of_listener = |listener: &ListenerStatus| {
        json!({
            "name": listener.name,
            "supportedKinds": listener.kinds.iter().map(kind).collect::<Vec<_>>(),
            "attachedRoutes": listener.attached,
            "conditions": written(&of_listener(listener, programmed), known(&listener.name), generation),
        })
    };
    found.iter().map(of_listener).collect()
}

/// Whether all that it refers to is there.
fn resolved(found: &Found) -> Condition {
    if let Some(refusal) = &found.unresolved {
        return Condition::fails("ResolvedRefs", refusal.reason, refusal.message.as_str());
    }
    match found.listeners.iter().find_map(|listener| listener.unresolved.as_ref()) {
        Some(refusal) => Condition::fails("ResolvedRefs", "ListenersNotResolved", refusal.message.as_str()),
        None => Condition::holds("ResolvedRefs", "ResolvedRefs"),
    }
}

fn accepted(gateway: &GatewayObject, role: Role, listeners: &[ListenerStatus]) -> Condition {
    if gateway.spec.infrastructure.parameters_ref.is_some() {
        let message = "infrastructure.parametersRef: there are no parameters";
        return Condition::fails("Accepted", "InvalidParameters", message);
    }
    let unsupported = gateway.spec.addresses.iter().find(|asked| role == Role::Ingress && !asked.is_ip());
    if let Some(asked) = unsupported {
        let kind = asked.kind.as_deref().unwrap_or_default();
        let message = format!("addresses are of type IPAddress here, and {kind} is none");
        return Condition::fails("Accepted", "UnsupportedAddress", message);
    }
    by_listeners(listeners)
}

/// Whether one of the listeners of a Gateway or a ListenerSet is as it should be.
pub(super) fn by_listeners(listeners: &[ListenerStatus]) -> Condition {
    let wrong = |listener: &&ListenerStatus| listener.refused.is_some() || listener.conflict.is_some();
    let Some(first) = listeners.iter().find(wrong) else { return Condition::holds("Accepted", "Accepted") };
    let why = first.refused.as_ref().or(first.conflict.as_ref()).map(|refusal| refusal.message.clone());
    let message = why.unwrap_or_default();
    if listeners.iter().all(|listener| wrong(&listener)) {
        return Condition::fails("Accepted", "ListenersNotValid", message);
    }
    Condition { message, ..Condition::holds("Accepted", "ListenersNotValid") }
}

fn programmed(gateway: &GatewayObject, role: Role, run: &Run) -> Condition {
    let mut asked = gateway.spec.addresses.iter().filter_map(RequestedAddress::ip);
    let missing = asked.find(|asked| role == Role::Ingress && run.addresses.iter().all(|had| had["value"] != **asked));
    let place = match role {
        Role::Waypoint => "its Service has no address yet",
        Role::Ingress => "its Service has no address yet: who gives out addresses of load balancers?",
    };
    match &run.outcome {
        Outcome::Failed(condition) => condition.clone(),
        Outcome::Made if let Some(asked) = missing => {
            let message =
                format!("its Service did not get {asked}: is it one of the load balancer's, free, and the only one?");
            Condition::fails("Programmed", "AddressNotUsable", message)
        }
        Outcome::Made if run.addresses.is_empty() => Condition::fails("Programmed", "AddressNotAssigned", place),
        Outcome::Made if !run.ready => {
            Condition::fails("Programmed", "Pending", "no replica of its Deployment is ready")
        }
        Outcome::Made => Condition::holds("Programmed", "Programmed"),
    }
}

fn of_listener(listener: &ListenerStatus, gateway: &Condition) -> [Condition; 4] {
    let accepted = match listener.refused.as_ref().or(listener.conflict.as_ref()) {
        Some(refusal) => Condition::fails("Accepted", refusal.reason, refusal.message.as_str()),
        None => Condition::holds("Accepted", "Accepted"),
    };
    let conflicted = match &listener.conflict {
        Some(refusal) => {
            Condition { message: refusal.message.clone(), ..Condition::holds("Conflicted", refusal.reason) }
        }
        None => Condition::fails("Conflicted", "NoConflicts", ""),
    };
    let resolved = match &listener.unresolved {
        Some(refusal) => Condition::fails("ResolvedRefs", refusal.reason, refusal.message.as_str()),
        None => Condition::holds("ResolvedRefs", "ResolvedRefs"),
    };
    let programmed = match [&accepted, &resolved].into_iter().find(|condition| condition.holds != Some(true)) {
        Some(fault) => {
            let reason = listener.conflict.as_ref().map_or("Invalid", |conflict| conflict.reason);
            Condition::fails("Programmed", reason, fault.message.as_str())
        }
        None => gateway.clone(),
    };
    [accepted, conflicted, programmed, resolved]
}
