//! The GatewayClasses: ours are made and accepted; one that another controller has is left to it.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, GroupVersionKind, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use mesh_core::lock::UnpoisonedMutex as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;

use super::Gateways;
use super::condition::{Condition, written};
use super::object::{CONTROLLER, Role, role};

/// Who writes them.
const MANAGER: &str = "mesh-control-classes";
/// How often to try again while the cluster does not know the kind, or does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// The classes that are made here.
const OURS: [(&str, &str); 2] = [
    ("mesh-waypoint", "Waypoints: what is sent to Services passes them"),
    ("mesh", "Gateways that let traffic in from outside"),
];

type ClassObject = kube::api::Object<ClassSpec, Value>;

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct ClassSpec {
    controller_name: String,
}

/// Which controller has a class, by the class's name.
#[derive(Debug)]
pub(super) struct Classes {
    controllers: Mutex<HashMap<String, String>>,
    /// Counts changes.
    changed: watch::Sender<u64>,
}

impl Default for Classes {
    fn default() -> Self {
        Self { controllers: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Classes {
    /// What Gateways of a class are run as; none for a class that is unknown, or another controller's.
    pub(super) fn role(&self, class: &str) -> Option<Role> {
        let controllers = self.controllers.lock_unpoisoned();
        let is_foreign = controllers.get(class).is_some_and(|controller| controller != CONTROLLER);
        role(class).filter(|_| !is_foreign)
    }

    /// Tells of changes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn set(&self, class: &str, controller: Option<String>) {
        let mut controllers = self.controllers.lock_unpoisoned();
        let before = match controller.clone() {
            Some(controller) => controllers.insert(class.to_owned(), controller),
            None => controllers.remove(class),
        };
        drop(controllers);
        if before != controller {
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

/// Makes the classes once their kind is known, and follows all of them. Runs until dropped.
pub(super) async fn follow(gateways: &Gateways) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "GatewayClass"));
    let api: Api<ClassObject> = Api::all_with(gateways.client.clone(), &resource);
    make(&api).await;
    let mut events = pin!(watcher(api.clone(), watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(class) | watcher::Event::InitApply(class)) => {
                gateways.classes.set(&class.name_any(), Some(class.spec.controller_name.clone()));
                if class.spec.controller_name == CONTROLLER
                    && let Err(error) = accept(&api, &class).await
                {
                    tracing::warn!(class = class.name_any(), %error, "status of a GatewayClass not written");
                }
            }
            Ok(watcher::Event::Delete(class)) => gateways.classes.set(&class.name_any(), None),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => tracing::warn!(%error, "GatewayClasses are not watched; it is tried again"),
        }
    }
}

async fn make(api: &Api<ClassObject>) {
    let parameters = PatchParams::apply(MANAGER).force();
    for (name, description) in OURS {
        let class = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "mesh"}},
            "spec": {"controllerName": CONTROLLER, "description": description},
        });
        let mut told = false;
        while let Err(error) = api.patch(name, &parameters, &Patch::Apply(&class)).await {
            if !std::mem::replace(&mut told, true) {
                tracing::info!(class = name, %error, "GatewayClass not made; it is tried again");
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

async fn accept(api: &Api<ClassObject>, class: &ClassObject) -> Result<(), kube::Error> {
    let nothing = Value::Null;
    let before = class.status.as_ref().unwrap_or(&nothing);
    let known = role(&class.name_any()).is_some();
    let condition = if known {
        Condition::holds("Accepted", "Accepted")
    } else {
        let message = "this controller knows no class of that name";
        Condition::fails("Accepted", "InvalidParameters", message)
    };
    let conditions = written(&[condition], &before["conditions"], class.metadata.generation);
    if conditions == before["conditions"] {
        return Ok(());
    }
    let name = class.name_any();
    let status = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "status": {"conditions": conditions},
    });
    let parameters = PatchParams::apply(MANAGER).force();
    api.patch_status(&name, &parameters, &Patch::Apply(&status)).await.map(drop)
}
