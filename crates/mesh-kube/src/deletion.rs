//! Tells when a DaemonSet is deleted: the mesh is being uninstalled, and not merely restarted.

use std::pin::pin;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio_stream::StreamExt as _;

/// Resolves when the DaemonSet is being deleted, or is not there.
///
/// Told by a watch that is open already, since an uninstallation takes the right to ask away with the rest.
pub async fn daemon_set_deleted(client: Client, namespace: &str, name: &str) {
    let api = daemon_sets(client, namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut listed = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed = false,
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                if object.metadata.deletion_timestamp.is_some() {
                    return;
                }
                listed = true;
            }
            Ok(watcher::Event::InitDone) if listed => {}
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => return,
            Err(error) => {
                tracing::warn!(namespace, name, %error, "whether the mesh is uninstalled is not known; it is tried again");
            }
        }
    }
    std::future::pending().await
}

/// Whether the DaemonSet is there, and not being deleted. Where nobody may ask any more, it is not known to be.
pub async fn daemon_set_stays(client: Client, namespace: &str, name: &str) -> bool {
    let found = daemon_sets(client, namespace).get_opt(name).await;
    found.is_ok_and(|found| found.is_some_and(|set| set.metadata.deletion_timestamp.is_none()))
}

fn daemon_sets(client: Client, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "DaemonSet"));
    Api::namespaced_with(client, namespace, &resource)
}
