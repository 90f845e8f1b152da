//! What the controllers of Gateways, and of what is beside them, have in common: what they look at, and when they look again.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, Object};
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Gateways;
use super::manifest::{MANAGED, MANAGED_BY_US};
use super::object::{GatewayObject, gateways};
use crate::kubernetes;

/// Pause before a status that was not written is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What is made for Gateways.
pub(super) fn made() -> watcher::Config {
    watcher::Config::default().labels(&format!("{MANAGED}={MANAGED_BY_US}"))
}

/// Follows objects of a kind, of which `reconcile` writes the status, and what is found of them, until dropped.
pub(super) async fn statuses<S, C, F>(
    gateways: &Gateways,
    (kind, controller): (&'static str, Controller<Object<S, Value>>),
    reconcile: impl FnMut(Arc<Object<S, Value>>, Arc<C>) -> F,
    context: Arc<C>,
) where
    S: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    F: Future<Output = Result<Action, kube::Error>> + Send + 'static,
{
    let (again, all) = mpsc::channel(1);
    let later = |_: Arc<Object<S, Value>>, _: &kube::Error, _: Arc<C>| Action::requeue(TRY_AGAIN);
    let report = kubernetes::report(
        controller.reconcile_all_on(ReceiverStream::new(all)).run(reconcile, later, context),
        |object, error| tracing::debug!(kind, %object, %error, "a status is not written; it is tried again"),
        // A kind that the cluster does not know is waited for.
        |error| tracing::debug!(kind, %error, "objects are not followed; it is tried again"),
    );
    tokio::join!(report, gateways.tell_of_statuses(again));
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
