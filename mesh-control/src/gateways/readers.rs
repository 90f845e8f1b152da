//! Lets the proxies of Gateways read the cluster, and nobody else: the subjects of one ClusterRoleBinding that the chart makes.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;
use tokio_stream::StreamExt as _;

use super::Gateways;
use super::object::{GatewayObject, gateways as kind, made_name};

/// The chart's ClusterRole for them, and its binding.
const ROLE: &str = "mesh-waypoint";
/// Who writes the subjects.
const MANAGER: &str = "mesh-control-readers";

/// Pause before what was not written is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(3);

/// The Gateways, by namespace and name.
type Known = BTreeMap<(String, String), GatewayObject>;

/// Follows Gateways and classes until dropped.
pub(super) async fn follow(gateways: &Gateways) {
    let api: Api<GatewayObject> = Api::all_with(gateways.client.clone(), &kind());
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut changes = gateways.classes.changes();
    let (mut known, mut listed, mut applied, mut complete) = (Known::new(), Known::new(), None, false);
    let mut failed = false;
    loop {
        tokio::select! {
            event = events.next() => match event {
                None => return,
                Some(Ok(watcher::Event::Init)) => listed.clear(),
                Some(Ok(watcher::Event::InitApply(gateway))) => take(&mut listed, gateway),
                Some(Ok(watcher::Event::InitDone)) => {
                    known = std::mem::take(&mut listed);
                    complete = true;
                }
                Some(Ok(watcher::Event::Apply(gateway))) => take(&mut known, gateway),
                Some(Ok(watcher::Event::Delete(gateway))) => {
                    known.remove(&key(&gateway));
                }
                Some(Err(error)) => tracing::debug!(%error, "Gateways are not watched; it is tried again"),
            },
            // Its sender is the other half of the same value.
            _ = changes.changed() => {}
            () = tokio::time::sleep(TRY_AGAIN), if failed => {}
        }
        if complete {
            let accounts: Vec<_> = known
                .iter()
                .filter_map(|((namespace, name), gateway)| {
                    let role = gateways.classes.role(&gateway.spec.gateway_class_name)?;
                    Some((namespace.clone(), made_name((name, &gateway.spec.gateway_class_name), role)))
                })
                .collect();
            if applied.as_ref() != Some(&accounts) {
                let bound = bind(gateways, &accounts).await;
                failed = bound.is_err();
                match bound {
                    Ok(()) => applied = Some(accounts),
                    Err(error) => tracing::error!(%error, "proxies that are new may not read the cluster"),
                }
            }
        }
    }
}

fn key(gateway: &GatewayObject) -> (String, String) {
    (gateway.namespace().unwrap_or_default(), gateway.name_any())
}

fn take(known: &mut Known, mut gateway: GatewayObject) {
    gateway.metadata.managed_fields = None;
    gateway.status = None;
    known.insert(key(&gateway), gateway);
}

async fn bind(gateways: &Gateways, accounts: &[(String, String)]) -> Result<(), kube::Error> {
    let subject =
        |(namespace, name): &(String, String)| json!({"kind": "ServiceAccount", "namespace": namespace, "name": name});
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": ROLE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
        "subjects": accounts.iter().map(subject).collect::<Vec<_>>(),
    });
    let api: Api<ClusterRoleBinding> = Api::all(gateways.client.clone());
    api.patch(ROLE, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&binding)).await.map(drop)
}
