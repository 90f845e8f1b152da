//! Brings what runs to what Gateways ask for, whenever either of them changes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::controller::{Action, Error};
use kube::runtime::{Controller, watcher};
use mesh_transport::CertificateSource as _;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::Gateways;
use super::apply::{ApplyError, apply, remove};
use super::manifest::{MANAGED, MANAGED_BY_US, Plan};
use super::object::{GatewayObject, Scale, gateways as kind};
use super::status;

/// Pause before what failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(3);

/// Why a Gateway is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeployError {
    /// An object was not written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The authority's Service is not known yet. Worth a retry.
    #[error("the Service of the certificate authority has no address")]
    NoAuthority,
    /// The roots cannot be read. Worth a retry.
    #[error("the roots cannot be read: {0}")]
    Roots(#[source] std::io::Error),
    /// The status was not written. Worth a retry.
    #[error("the status: {0}")]
    Status(#[source] Box<kube::Error>),
}

/// Follows Gateways, and what was made for them, until dropped.
pub(super) async fn follow(gateways: &Arc<Gateways>) {
    let client = &gateways.client;
    let made = watcher::Config::default().labels(&format!("{MANAGED}={MANAGED_BY_US}"));
    let (again, all) = mpsc::channel(1);
    let main: Api<GatewayObject> = Api::all_with(client.clone(), &kind());
    let controller = Controller::new_with(main, watcher::Config::default(), kind())
        .owns(Api::<Deployment>::all(client.clone()), made.clone())
        .owns(Api::<Service>::all(client.clone()), made.clone())
        .owns(Api::<ServiceAccount>::all(client.clone()), made)
        .reconcile_all_on(ReceiverStream::new(all));
    let later = |_: Arc<GatewayObject>, _: &DeployError, _: Arc<Gateways>| Action::requeue(TRY_AGAIN);
    let mut done = std::pin::pin!(controller.run(reconcile, later, gateways.clone()));
    let report = async {
        while let Some(result) = done.next().await {
            match result {
                // It is gone meanwhile.
                Ok(_) | Err(Error::ObjectNotFound(_)) => {}
                Err(Error::ReconcilerFailed(error, gateway)) => {
                    tracing::warn!(%gateway, %error, "Gateway not as it should be; it is tried again");
                }
                Err(error) => tracing::warn!(%error, "Gateways are not followed; it is tried again"),
            }
        }
    };
    tokio::join!(report, tell_of_changes(gateways, again));
}

/// What all Gateways depend on: classes, the authority's address and roots.
async fn tell_of_changes(gateways: &Gateways, again: mpsc::Sender<()>) {
    let (mut config, mut classes) = (gateways.config.clone(), gateways.classes.changes());
    let mut trust = gateways.authority.trust();
    let mut address = gateways.authority_address();
    loop {
        tokio::select! {
            changed = config.changed() => {
                let now = gateways.authority_address();
                if changed.is_err() || now == address {
                    // Nobody tells of changes any more once this program ends.
                    if changed.is_err() { return }
                    continue;
                }
                address = now;
            }
            changed = classes.changed() => if changed.is_err() { return },
            changed = trust.changed() => if changed.is_err() { return },
        }
        if again.send(()).await.is_err() {
            return;
        }
    }
}

async fn reconcile(gateway: Arc<GatewayObject>, gateways: Arc<Gateways>) -> Result<Action, DeployError> {
    if gateway.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let Some(role) = gateways.classes.role(&gateway.spec.gateway_class_name) else {
        abandon(&gateways, &gateway).await?;
        return Ok(Action::await_change());
    };
    let made = async {
        let authority = gateways.authority_address().ok_or(DeployError::NoAuthority)?;
        let roots = tokio::fs::read_to_string(&gateways.settings.roots).await.map_err(DeployError::Roots)?;
        let plan = Plan { gateway: &gateway, role, settings: &gateways.settings, authority: &authority, roots: &roots };
        for object in plan.objects() {
            apply(&gateways.client, &gateway, &object).await?;
        }
        let scale = Scale::of(&gateway);
        if !scale.is_several() {
            remove(&gateways.client, &gateway, ("policy/v1", "PodDisruptionBudget")).await?;
        }
        if scale.most.is_none() {
            remove(&gateways.client, &gateway, ("autoscaling/v2", "HorizontalPodAutoscaler")).await?;
        }
        Ok(())
    };
    let made: Result<(), DeployError> = made.await;
    status::write(&gateways, &gateway, role, &made).await.map_err(|error| DeployError::Status(Box::new(error)))?;
    made.map(|()| Action::await_change())
}

/// Removes what was made for a Gateway whose class is not ours any more.
async fn abandon(gateways: &Gateways, gateway: &GatewayObject) -> Result<(), DeployError> {
    let namespace = gateway.namespace().unwrap_or_default();
    let deployments: Api<Deployment> = Api::namespaced(gateways.client.clone(), &namespace);
    let there = deployments.get_metadata_opt(&gateway.name_any()).await;
    let is_ours = |made: &kube::core::PartialObjectMeta<Deployment>| {
        made.labels().get(MANAGED).is_some_and(|value| value == MANAGED_BY_US)
            && made.owner_references().iter().any(|owner| Some(&owner.uid) == gateway.uid().as_ref())
    };
    if !there.ok().flatten().as_ref().is_some_and(is_ours) {
        return Ok(());
    }
    for kind in [
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("policy/v1", "PodDisruptionBudget"),
        ("v1", "Service"),
        ("v1", "ServiceAccount"),
        ("apps/v1", "Deployment"),
    ] {
        remove(&gateways.client, gateway, kind).await?;
    }
    Ok(())
}
