//! What the controllers of Gateways and of routes have in common: what they look at, and what is told of what failed.

use std::pin::pin;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::runtime::controller::Error;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};

use super::manifest::{MANAGED, MANAGED_BY_US};
use super::object::{GatewayObject, gateways};

/// What is made for Gateways.
pub(super) fn made() -> watcher::Config {
    watcher::Config::default().labels(&format!("{MANAGED}={MANAGED_BY_US}"))
}

/// A controller of Gateways and of what runs for them; by the sender, it looks at all of them again.
pub(super) fn of_gateways(client: &Client) -> (Controller<GatewayObject>, mpsc::Sender<()>) {
    let (again, all) = mpsc::channel(1);
    let main: Api<GatewayObject> = Api::all_with(client.clone(), &gateways());
    let controller = Controller::new_with(main, watcher::Config::default(), gateways())
        .owns(Api::<Deployment>::all(client.clone()), made())
        .owns(Api::<Service>::all(client.clone()), made())
        .reconcile_all_on(ReceiverStream::new(all));
    (controller, again)
}

/// Tells what failed of an object, and what keeps objects from being followed, for as long as a controller runs.
pub(super) async fn report<O, E: std::error::Error + 'static>(
    running: impl Stream<Item = Result<O, Error<E, watcher::Error>>>,
    failed: impl Fn(&ObjectRef<DynamicObject>, &E),
    lost: impl Fn(&dyn std::error::Error),
) {
    let mut running = pin!(running);
    while let Some(result) = running.next().await {
        match result {
            // It is gone meanwhile.
            Ok(_) | Err(Error::ObjectNotFound(_)) => {}
            Err(Error::ReconcilerFailed(error, object)) => failed(&object, &error),
            Err(error) => lost(&error),
        }
    }
}
