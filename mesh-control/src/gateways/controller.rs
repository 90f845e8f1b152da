//! What the controllers of Gateways have in common: what they look at.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::Api;
use kube::runtime::{Controller, watcher};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

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
