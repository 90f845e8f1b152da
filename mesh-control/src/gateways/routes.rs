//! How routes are: at each parent that is ours whether the route is accepted there, and whether what it refers to is there.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, GroupVersionKind, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use mesh_config::{Config, Key, RouteStatus, Severity};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Gateways;
use super::condition::{Condition, written};
use super::controller;
use super::object::CONTROLLER;

const GROUP: &str = "gateway.networking.k8s.io";
/// The kinds, with the version by which they are written.
const KINDS: [(&str, &str); 4] = [("HTTPRoute", "v1"), ("GRPCRoute", "v1"), ("TLSRoute", "v1"), ("TCPRoute", "v1")];

type RouteObject = kube::api::Object<RouteSpec, Value>;

/// Of a route, what its status repeats.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct RouteSpec {
    parent_refs: Vec<Value>,
}

/// Follows routes of all kinds, and what is found of them, until dropped.
pub(super) async fn follow(gateways: &Arc<Gateways>) {
    let [http, grpc, tls, tcp] = KINDS.map(|kind| of_kind(gateways, kind));
    tokio::join!(http, grpc, tls, tcp);
}

/// What reconciling one kind needs.
struct Kind {
    gateways: Arc<Gateways>,
    name: &'static str,
    resource: ApiResource,
}

async fn of_kind(gateways: &Arc<Gateways>, (name, version): (&'static str, &str)) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, version, name));
    let api: Api<RouteObject> = Api::all_with(gateways.client.clone(), &resource);
    let kind = Arc::new(Kind { gateways: Arc::clone(gateways), name, resource: resource.clone() });
    let controller = Controller::new_with(api, watcher::Config::default(), resource);
    controller::statuses(gateways, (name, controller), reconcile, kind).await;
}

async fn reconcile(route: Arc<RouteObject>, kind: Arc<Kind>) -> Result<Action, kube::Error> {
    let nothing = Value::Null;
    let before = &route.status.as_ref().unwrap_or(&nothing)["parents"];
    let config = kind.gateways.config.borrow().clone();
    let Some(entries) = entries(&kind, &route, &config, before) else { return Ok(Action::await_change()) };
    let others = before.as_array().into_iter().flatten().filter(|entry| entry["controllerName"] != CONTROLLER);
    let parents: Value = others.cloned().chain(entries).collect();
    if *before == parents || before.is_null() && parents == json!([]) {
        return Ok(Action::await_change());
    }
    // The list is one value: what others wrote meanwhile must not be lost.
    let patch = json!({"metadata": {"resourceVersion": route.resource_version()}, "status": {"parents": parents}});
    let namespace = route.namespace().unwrap_or_default();
    let api: Api<RouteObject> = Api::namespaced_with(kind.gateways.client.clone(), &namespace, &kind.resource);
    api.patch_status(&route.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(Action::await_change())
}

/// What is to be said at each parent that is ours; none while that version of the route is not known yet.
fn entries(kind: &Kind, route: &RouteObject, config: &Config, before: &Value) -> Option<Vec<Value>> {
    let (namespace, name) = (route.namespace().unwrap_or_default(), route.name_any());
    let key: Key = (namespace.as_str().into(), name.as_str().into());
    let known = config.statuses.routes.get(&(kind.name, key));
    let generation = route.metadata.generation;
    let broken =
        known.is_none_or(|known| known.generation != generation).then(|| flaw(config, kind.name, &key_of(route)));
    let (known, flaw) = match (known, broken.flatten()) {
        (Some(known), None) if known.generation != generation => return None,
        (known, flaw) => (known, flaw),
    };
    let is_ours = |reference: &Value| is_ours(&kind.gateways, config, reference, &namespace);
    let said = route.spec.parent_refs.iter().enumerate().filter(|(_, reference)| is_ours(reference));
    let of_parent = |(place, reference): (usize, &Value)| {
        let conditions = conditions(known, place, flaw.as_deref())?;
        let entry = before
            .as_array()
            .into_iter()
            .flatten()
            .find(|entry| entry["controllerName"] == CONTROLLER && entry["parentRef"] == *reference);
        Some(json!({
            "parentRef": reference,
            "controllerName": CONTROLLER,
            "conditions": written(&conditions, entry.map_or(&Value::Null, |entry| &entry["conditions"]), generation),
        }))
    };
    Some(said.filter_map(of_parent).collect())
}

fn key_of(route: &RouteObject) -> (String, String) {
    (route.namespace().unwrap_or_default(), route.name_any())
}

/// What makes an object of the Gateway API unreadable, if it is.
pub(super) fn flaw(config: &Config, kind: &str, (namespace, name): &(String, String)) -> Option<String> {
    let found = config.findings.iter().find(|finding| {
        finding.severity == Severity::Error
            && finding.code.breaks_objects()
            && finding.origin.object.as_ref().is_some_and(|object| {
                *object.kind == *kind && *object.name == **name && object.namespace.as_deref() == Some(namespace)
            })
    })?;
    Some(found.detail())
}

/// Whether a parent is a Service, or a Gateway that is run here.
fn is_ours(gateways: &Gateways, config: &Config, reference: &Value, own: &str) -> bool {
    let text = |field: &str| reference[field].as_str();
    match (text("group").unwrap_or(GROUP), text("kind").unwrap_or("Gateway")) {
        ("" | "core", "Service") => true,
        (GROUP, kind @ ("Gateway" | "ListenerSet")) => {
            let key: Key = (text("namespace").unwrap_or(own).into(), text("name").unwrap_or_default().into());
            let class = match kind {
                "Gateway" => config.statuses.gateways.get(&key).map(|status| &status.class),
                _ => config.statuses.listener_sets.get(&key).map(|status| &status.class),
            };
            class.is_some_and(|class| gateways.classes.role(class).is_some())
        }
        _ => false,
    }
}

fn conditions(known: Option<&RouteStatus>, place: usize, flaw: Option<&str>) -> Option<Vec<Condition>> {
    let resolved = Condition::holds("ResolvedRefs", "ResolvedRefs");
    let Some(known) = known else {
        let message = flaw?;
        return Some(vec![Condition::fails("Accepted", "UnsupportedValue", message), resolved]);
    };
    let parent = known.parents.get(&place)?;
    let accepted = parent.refused.as_ref().map_or_else(
        || Condition::holds("Accepted", "Accepted"),
        |refusal| Condition::fails("Accepted", refusal.reason, refusal.message.as_str()),
    );
    let resolved = known
        .unresolved
        .as_ref()
        .map_or(resolved, |refusal| Condition::fails("ResolvedRefs", refusal.reason, refusal.message.as_str()));
    let mut conditions = vec![accepted, resolved];
    if let Some(partly) = &known.partly {
        let message = match flaw {
            Some(flaw) => format!("{}: {flaw}", partly.message),
            None => partly.message.clone(),
        };
        conditions.push(Condition { message, ..Condition::holds("PartiallyInvalid", partly.reason) });
    }
    Some(conditions)
}
