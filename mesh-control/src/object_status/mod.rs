//! How objects of Istio's kinds are, in their own status: what is found of the generation that was read, and whether that
//! generation is in force at everybody who is told of the configuration. The replica that leads writes it, and what holds as
//! before is not written again.

mod found;
mod written;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use kube::{Client, ResourceExt as _};
use mesh_config::{Config, ObjectName, Served};
use mesh_xds::{Body, OBJECT_TYPE, Resource, State, Subscribers, Version};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::gateways::condition::Condition;
use crate::kubernetes;
use found::{Found, Generations};
use written::{RECONCILED, Said, invalid, is_in_force, status};

/// The kinds, with the version by which they are written.
const KINDS: [(&str, &str, &str); 11] = [
    ("security.istio.io", "v1", "AuthorizationPolicy"),
    ("security.istio.io", "v1", "PeerAuthentication"),
    ("security.istio.io", "v1", "RequestAuthentication"),
    ("networking.istio.io", "v1", "VirtualService"),
    ("networking.istio.io", "v1", "DestinationRule"),
    ("networking.istio.io", "v1", "ServiceEntry"),
    ("networking.istio.io", "v1", "WorkloadEntry"),
    ("networking.istio.io", "v1", "Gateway"),
    ("networking.istio.io", "v1alpha3", "EnvoyFilter"),
    ("telemetry.istio.io", "v1", "Telemetry"),
    ("policy.mesh.dev", "v1alpha1", "RateLimitPolicy"),
];
/// Pause before what failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How soon to look again whether everybody has what is on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(250);
/// What is on its way for so long is told of: before, it would be written of each change.
const LATE: Duration = Duration::from_secs(5);

/// Who is told what.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) state: watch::Receiver<State>,
    pub(crate) subscribers: Subscribers,
}

/// Writes objects' status.
pub(crate) struct ObjectStatus {
    client: Client,
    config: watch::Receiver<Arc<Config>>,
    /// None until the configuration is served.
    told: watch::Receiver<Option<Told>>,
    /// The generations of objects that are on their way, with the version that has them, and since when; by their paths.
    on_their_way: Mutex<HashMap<String, (i64, Version, Instant)>>,
    /// What is found in the configuration that was looked at last.
    found: Mutex<Arc<Found>>,
    generations: Mutex<Generations>,
}

/// How far a generation is.
enum Progress {
    /// Not served yet.
    Read,
    /// At so many of all.
    At { current: usize, all: usize, late: bool },
}

impl ObjectStatus {
    pub(crate) fn new(
        client: Client,
        config: watch::Receiver<Arc<Config>>,
        told: watch::Receiver<Option<Told>>,
    ) -> Arc<Self> {
        let found = Mutex::new(Found::of(config.borrow().clone()));
        Arc::new(Self { client, config, told, on_their_way: Mutex::default(), found, generations: Mutex::default() })
    }

    /// Follows objects, and what is found of them, until dropped.
    pub(crate) async fn follow(self: &Arc<Self>) {
        let mut tasks = tokio::task::JoinSet::new();
        let mut again = Vec::new();
        for kind in KINDS {
            let (sender, all) = mpsc::channel(1);
            again.push(sender);
            let status = Arc::clone(self);
            tasks.spawn(async move { status.of_kind(kind, all).await });
        }
        self.tell_of_changes(&again).await;
    }

    async fn of_kind(
        self: Arc<Self>,
        (group, version, name): (&'static str, &str, &'static str),
        all: mpsc::Receiver<()>,
    ) {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, name));
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let later = |_: Arc<DynamicObject>, _: &kube::Error, _: Arc<Self>| Action::requeue(TRY_AGAIN);
        let of_object = resource.clone();
        let controller = Controller::new_with(api, watcher::Config::default(), resource)
            .reconcile_all_on(ReceiverStream::new(all))
            .run(
                move |object, status| {
                    let resource = of_object.clone();
                    async move { status.reconcile(&object, &resource).await }
                },
                later,
                self,
            );
        kubernetes::report(
            controller,
            |object, error| tracing::debug!(%object, %error, "status not written; it is tried again"),
            // A kind that the cluster does not know is waited for.
            |error| tracing::debug!(kind = name, %error, "not followed; it is tried again"),
        )
        .await;
    }

    /// Has objects looked at again when something else was read or found of any.
    async fn tell_of_changes(&self, again: &[mpsc::Sender<()>]) {
        let mut config = self.config.clone();
        let mut before = Found::of(Arc::clone(&config.borrow_and_update()));
        *lock(&self.found) = Arc::clone(&before);
        while config.changed().await.is_ok() {
            let now = Found::of(Arc::clone(&config.borrow_and_update()));
            let served = &now.config.served;
            let is_read = served.differences(&before.config.served, None).any(|(before, now)| {
                let either: Option<&Arc<Served>> = now.or(before);
                either.is_some_and(|served| is_told_of(served.path()))
            });
            if is_read {
                let is_there = |path: &str| served.get(("", path)).is_some();
                // What is gone is not on its way any more.
                lock(&self.on_their_way).retain(|path, _| is_there(path));
                lock(&self.generations).retain(is_there);
            }
            let is_other = is_read || now.differs(&before);
            *lock(&self.found) = Arc::clone(&now);
            if is_other {
                for kind in again {
                    // One that is full will look at all of them anyway.
                    let _ = kind.try_send(());
                }
            }
            before = now;
        }
        std::future::pending().await
    }

    async fn reconcile(&self, object: &DynamicObject, resource: &ApiResource) -> Result<Action, kube::Error> {
        let done = Ok(Action::await_change());
        let name = ObjectName {
            group: resource.group.as_str().into(),
            kind: resource.kind.as_str().into(),
            namespace: object.namespace().map(Into::into),
            name: object.name_any().into(),
        };
        let (path, Some(generation)) = (name.path(), object.metadata.generation) else { return done };
        let found = lock(&self.found).clone();
        let Some(served) = found.config.served.get(("", path.as_str())) else { return done };
        if lock(&self.generations).of(served) != Some(generation) {
            return done;
        }
        let findings = found.of_object(&name);
        let before = object.data.get("status").cloned().unwrap_or_default();
        let (condition, next) = match findings.iter().find(|finding| finding.code.breaks_objects()) {
            Some(flaw) => (Some(invalid(flaw)), Action::await_change()),
            None if is_in_force(&before, generation) => (None, Action::await_change()),
            None => match self.condition(&path, generation, served) {
                // All is said at once.
                (None, next) => return Ok(next),
                known => known,
            },
        };
        let targets = targets(object, &resource.kind);
        let said = Said { reconciled: condition, findings: &findings, generation, targets };
        let status = status(&before, &said);
        if status == before {
            return Ok(next);
        }
        let patch = json!({"metadata": {"resourceVersion": object.resource_version()}, "status": status});
        let namespace = object.namespace().unwrap_or_default();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, resource);
        api.patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(next)
    }

    /// What is to be said of a generation that is not known to be in force everywhere, and when to look again.
    fn condition(&self, path: &str, generation: i64, served: &Served) -> (Option<Condition>, Action) {
        let Progress::At { current, all, late } = self.progress(path, generation, served) else {
            return (None, Action::requeue(ON_ITS_WAY));
        };
        // Where nobody is told nothing is in force: all may be about to connect.
        let everywhere = current == all && all > 0;
        let message = format!("in force at {current} of {all} nodes, waypoints and gateways");
        if everywhere {
            lock(&self.on_their_way).remove(path);
            (Some(Condition { message, ..Condition::holds(RECONCILED, "Reconciled") }), Action::await_change())
        } else if late {
            (Some(Condition::fails(RECONCILED, "Pending", message)), Action::requeue(TRY_AGAIN))
        } else {
            (None, Action::requeue(ON_ITS_WAY))
        }
    }

    fn progress(&self, path: &str, generation: i64, served: &Served) -> Progress {
        let told = self.told.borrow().clone();
        let Some(Told { state, subscribers }) = told else { return Progress::Read };
        let (version, is_served) = {
            let state = state.borrow();
            let table = state.table(OBJECT_TYPE);
            let wanted = Resource::new(path, Body::Object(served.source.clone()));
            (table.version(), table.resources().get(("", path)).is_some_and(|known| **known == wanted))
        };
        if !is_served {
            return Progress::Read;
        }
        let mut on_their_way = lock(&self.on_their_way);
        let entry = on_their_way.entry(path.to_owned()).or_insert((generation, version, Instant::now()));
        if entry.0 != generation {
            *entry = (generation, version, Instant::now());
        }
        let (_, version, since) = *entry;
        let far: Vec<bool> = subscribers
            .all()
            .iter()
            .filter_map(|subscriber| subscriber.told.as_ref())
            .map(|told| told.acknowledged.is_some_and(|acknowledged| acknowledged.generation >= version.generation))
            .collect();
        let current = far.iter().filter(|is_current| **is_current).count();
        Progress::At { current, all: far.len(), late: since.elapsed() >= LATE }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a path is of a kind whose status is written.
fn is_told_of(path: &str) -> bool {
    let mut parts = path.split('/');
    is_of_kinds(parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// Whether a kind's status is written.
fn is_of_kinds(group: &str, kind: &str) -> bool {
    KINDS.iter().any(|(known, _, name)| (group, kind) == (*known, *name))
}

/// How many targets a policy names, where a finding says of each that nobody takes it there.
fn targets(object: &DynamicObject, kind: &str) -> usize {
    if !["AuthorizationPolicy", "RequestAuthentication"].contains(&kind) {
        return 0;
    }
    let spec = &object.data["spec"];
    usize::from(spec["targetRef"].is_object()) + spec["targetRefs"].as_array().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_istios_kinds_have_their_status_written() {
        assert!(is_told_of("security.istio.io/AuthorizationPolicy/shop/one"));
        assert!(!is_told_of("/Pod/shop/one") && !is_told_of("gateway.networking.k8s.io/Gateway/shop/one"));
    }
}
