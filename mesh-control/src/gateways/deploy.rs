//! Brings what runs to what Gateways ask for, whenever either of them changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use mesh_core::l7::GATEWAY_NAME;
use mesh_core::lock::UnpoisonedMutex as _;
use mesh_transport::CertificateSource as _;
use tokio::sync::{mpsc, watch};

use super::Gateways;
use super::apply::{ApplyError, apply, remove};
use super::condition::Condition;
use super::controller;
use super::manifest::{MANAGED, MANAGED_BY_US, Plan};
use super::object::{GatewayObject, Scale, made_name};
use crate::kubernetes;

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
    /// What was made before is not known. Worth a retry.
    #[error("what was made before: {0}")]
    Listed(#[source] Box<kube::Error>),
}

/// How it came out to make what a Gateway asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it was made.
    Made,
    /// It was not, and so the Gateway is not programmed, by this condition.
    Failed(Condition),
}

/// The outcomes of all Gateways, by namespace and name.
#[derive(Debug)]
pub(super) struct Outcomes {
    known: Mutex<BTreeMap<(String, String), Outcome>>,
    /// Counts changes.
    changed: watch::Sender<u64>,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self { known: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Outcomes {
    /// Tells of changes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A Gateway's, once it was tried.
    pub(super) fn of(&self, gateway: &GatewayObject) -> Option<Outcome> {
        self.known.lock_unpoisoned().get(&name_of(gateway)).cloned()
    }

    fn set(&self, gateway: &GatewayObject, made: &Result<(), DeployError>) {
        let failed =
            |reason, error: &DeployError| Outcome::Failed(Condition::fails("Programmed", reason, error.to_string()));
        let outcome = match made {
            Ok(()) => Outcome::Made,
            Err(error @ DeployError::Apply(ApplyError::Taken { .. })) => failed("Invalid", error),
            Err(error) => failed("NoResources", error),
        };
        let before = self.known.lock_unpoisoned().insert(name_of(gateway), outcome.clone());
        if before != Some(outcome) {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn forget(&self, gateway: &GatewayObject) {
        self.known.lock_unpoisoned().remove(&name_of(gateway));
    }
}

fn name_of(gateway: &GatewayObject) -> (String, String) {
    (gateway.namespace().unwrap_or_default(), gateway.name_any())
}

/// Follows Gateways, and what was made for them, until dropped.
pub(super) async fn follow(gateways: &Arc<Gateways>) {
    let client = &gateways.client;
    let (controller, again) = controller::of_gateways(client);
    let controller = controller.owns(Api::<ServiceAccount>::all(client.clone()), controller::made());
    let later = |_: Arc<GatewayObject>, _: &DeployError, _: Arc<Gateways>| Action::requeue(TRY_AGAIN);
    let report = kubernetes::report(
        controller.run(reconcile, later, gateways.clone()),
        |gateway, error| tracing::warn!(%gateway, %error, "Gateway not as it should be; it is tried again"),
        |error| tracing::warn!(%error, "Gateways are not followed; it is tried again"),
    );
    tokio::join!(report, tell_of_changes(gateways, again));
}

/// What all Gateways depend on: classes, the authority's address and roots, and the ports that ListenerSets add.
async fn tell_of_changes(gateways: &Gateways, again: mpsc::Sender<()>) {
    let (mut config, mut classes) = (gateways.config.clone(), gateways.classes.changes());
    let mut trust = gateways.authority.trust();
    let known = || (gateways.authority_address(), gateways.set_ports());
    let mut before = known();
    loop {
        tokio::select! {
            changed = config.changed() => {
                let now = known();
                if changed.is_err() || now == before {
                    // Nobody tells of changes any more once this program ends.
                    if changed.is_err() { return }
                    continue;
                }
                before = now;
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
        gateways.outcomes.forget(&gateway);
        return Ok(Action::await_change());
    }
    let Some(role) = gateways.classes.role(&gateway.spec.gateway_class_name) else {
        abandon(&gateways, &gateway, None).await?;
        return Ok(Action::await_change());
    };
    let made = async {
        let authority = gateways.authority_address().ok_or(DeployError::NoAuthority)?;
        let roots = tokio::fs::read_to_string(&gateways.settings.roots).await.map_err(DeployError::Roots)?;
        let (namespace, name) = name_of(&gateway);
        let plan = Plan {
            gateway: &gateway,
            role,
            of_sets: &gateways.set_ports().remove(&(namespace.into(), name.into())).unwrap_or_default(),
            settings: &gateways.settings,
            authority: &authority,
            roots: &roots,
        };
        for object in plan.objects() {
            apply(&gateways.client, &gateway, &object).await?;
        }
        let (scale, name) =
            (Scale::of(&gateway), made_name((&gateway.name_any(), &gateway.spec.gateway_class_name), role));
        if !scale.is_several() {
            remove(&gateways.client, &gateway, ("policy/v1", "PodDisruptionBudget", &name)).await?;
        }
        if scale.most.is_none() {
            remove(&gateways.client, &gateway, ("autoscaling/v2", "HorizontalPodAutoscaler", &name)).await?;
        }
        abandon(&gateways, &gateway, Some(&name)).await
    };
    let made: Result<(), DeployError> = made.await;
    gateways.outcomes.set(&gateway, &made);
    made.map(|()| Action::await_change())
}

/// Removes what was made for a Gateway whose class is not ours any more, or another one of ours than before.
async fn abandon(gateways: &Gateways, gateway: &GatewayObject, kept: Option<&str>) -> Result<(), DeployError> {
    let namespace = gateway.namespace().unwrap_or_default();
    let deployments: Api<Deployment> = Api::namespaced(gateways.client.clone(), &namespace);
    let of_gateway =
        ListParams::default().labels(&format!("{MANAGED}={MANAGED_BY_US},{GATEWAY_NAME}={}", gateway.name_any()));
    let there = deployments.list_metadata(&of_gateway).await.map_err(|error| DeployError::Listed(Box::new(error)))?;
    for made in there {
        let name = made.name_any();
        let is_its_own = made.owner_references().iter().any(|owner| Some(&owner.uid) == gateway.uid().as_ref());
        if !is_its_own || kept == Some(name.as_str()) {
            continue;
        }
        for (version, kind) in [
            ("autoscaling/v2", "HorizontalPodAutoscaler"),
            ("policy/v1", "PodDisruptionBudget"),
            ("v1", "Service"),
            ("v1", "ServiceAccount"),
            ("apps/v1", "Deployment"),
        ] {
            remove(&gateways.client, gateway, (version, kind, &name)).await?;
        }
    }
    Ok(())
}
