//! How objects of Istio's kinds are, in their own status: what is found of the generation that was read, and whether that
//! generation is in force at everybody who is told of the configuration. The replica that leads writes it, and what holds as
//! before is not written again.

mod found;
mod peers;
mod progress;
mod written;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use kube::{Client, ResourceExt as _};
use mesh_config::{Config, ObjectName, Served};
use mesh_core::lock::UnpoisonedMutex as _;
use mesh_core::{Snapshot, hosts};
use mesh_xds::proto::Wanted;
use mesh_xds::{Body, OBJECT_TYPE, Resource};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::distribution::Audience;
use crate::gateways::condition::Condition;
use crate::kubernetes;
use found::{Found, Generations};
pub(crate) use peers::PeerSettings;
use peers::Peers;
use progress::{OnTheirWay, Tally};
use written::{Said, invalid, is_in_force, status};

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

/// Writes objects' status.
pub(crate) struct ObjectStatus {
    client: Client,
    config: watch::Receiver<Arc<Config>>,
    /// None until the configuration is served.
    told: watch::Receiver<Option<Audience>>,
    /// What is not known to be in force everywhere.
    on_their_way: OnTheirWay,
    peers: Arc<Peers>,
    /// What is found in the configuration that was looked at last.
    found: Mutex<Arc<Found>>,
    generations: Mutex<Generations>,
}

impl ObjectStatus {
    pub(crate) fn new(
        client: Client,
        config: watch::Receiver<Arc<Config>>,
        told: watch::Receiver<Option<Audience>>,
        peers: PeerSettings,
    ) -> Arc<Self> {
        let (found, on_their_way) = (Mutex::new(Found::of(config.borrow().clone())), OnTheirWay::default());
        let peers = Peers::new(client.clone(), peers, on_their_way.clone());
        Arc::new(Self { client, config, told, on_their_way, peers, found, generations: Mutex::default() })
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
        tokio::join!(self.tell_of_changes(&again), self.peers.follow());
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
        *self.found.lock_unpoisoned() = Arc::clone(&before);
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
                self.on_their_way.retain(is_there);
                self.generations.lock_unpoisoned().retain(is_there);
            }
            let is_other = is_read || now.differs(&before);
            *self.found.lock_unpoisoned() = Arc::clone(&now);
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
        let found = self.found.lock_unpoisoned().clone();
        let Some(served) = found.config.served.get(("", path.as_str())) else { return done };
        if self.generations.lock_unpoisoned().of(served) != Some(generation) {
            return done;
        }
        let findings = found.of_object(&name);
        let before = object.data.get("status").cloned().unwrap_or_default();
        let (condition, next) = match findings.iter().find(|finding| finding.code.breaks_objects()) {
            Some(flaw) => (Some(invalid(flaw)), Action::await_change()),
            None if is_in_force(&before, generation) => (None, Action::await_change()),
            None => match self.condition(&path, served) {
                // All is said at once.
                (None, next) => return Ok(next),
                known => known,
            },
        };
        let targets = targets(object, &resource.kind);
        let addresses = addresses(&found.config.snapshot, object, &resource.kind);
        let said = Said { reconciled: condition, findings: &findings, generation, targets, addresses };
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

    /// What is to be said of an object that is not known to be in force everywhere, and when to look again.
    fn condition(&self, path: &str, served: &Served) -> (Option<Condition>, Action) {
        let Some((tally, since)) = self.tally(path, served) else { return (None, Action::requeue(ON_ITS_WAY)) };
        if tally.is_everywhere() {
            self.on_their_way.remove(path);
            (Some(tally.condition()), Action::await_change())
        } else if since.elapsed() >= LATE {
            (Some(tally.condition()), Action::requeue(TRY_AGAIN))
        } else {
            (None, Action::requeue(ON_ITS_WAY))
        }
    }

    /// At how many it is in force, and since when it is on its way; none while it is not served, or the other replicas are not known.
    fn tally(&self, path: &str, served: &Served) -> Option<(Tally, Instant)> {
        let Audience { state, subscribers } = self.told.borrow().clone()?;
        let resource = Resource::new(path, Body::Object(served.source.clone()));
        let wanted = Wanted { name: path.to_owned(), version: resource.version() };
        let is_served =
            state.borrow().table(OBJECT_TYPE).resources().get(("", path)).is_some_and(|it| **it == resource);
        if !is_served {
            return None;
        }
        let since = self.on_their_way.note(&wanted);
        let own = subscribers.in_force().count(&wanted);
        Some((Tally::of(own, &self.peers.counts(&wanted)?), since))
    }
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

/// The addresses that the mesh has given a ServiceEntry's hosts, where clients are told of them.
fn addresses(snapshot: &Snapshot, object: &DynamicObject, kind: &str) -> Vec<(Arc<str>, IpAddr)> {
    let (Some(namespace), true) = (object.namespace(), kind == "ServiceEntry") else { return Vec::new() };
    let hosts = object.data["spec"]["hosts"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let own = hosts.filter_map(|host| snapshot.service_by_hostname(&host.to_ascii_lowercase()));
    let own = own.filter(|service| service.is_of_entry(&namespace, &object.name_any()));
    let given = own.flat_map(|service| {
        let all = hosts::addresses(snapshot, service).iter().filter(|address| hosts::is_automatic(**address));
        all.map(|address| (Arc::clone(&service.hostname), *address))
    });
    given.collect()
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
