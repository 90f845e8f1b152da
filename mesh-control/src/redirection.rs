//! Pods in the mesh say so by the annotation that Istio's agent gives them in ambient mode, which Kiali and others read. It is written
//! by way of the pods' status: of the rights that let one, the least.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ObjectMeta, PartialObjectMeta, Patch, PatchParams};
use kube::runtime::watcher::{Config as What, Event};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use mesh_config::Config;
use mesh_core::{Snapshot, Workload, WorkloadUid};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;

/// The annotation, and what it says.
const KEY: &str = "ambient.istio.io/redirection";
const ENABLED: &str = "enabled";
/// Who has written it, in the pods' `managedFields`.
const WRITER: &str = "mesh-control";
/// Pause before what failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The API server's answers where a pod is gone, or another has its name.
const GONE: [u16; 2] = [404, 409];

/// Keeps the annotation of every pod as it is by the configuration.
pub(crate) struct Redirection {
    client: Client,
    config: watch::Receiver<Arc<Config>>,
}

/// A pod, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SeenPod {
    namespace: String,
    name: String,
    is_enabled: bool,
    /// It was written here: Istio's own agent may be in the cluster as well.
    is_ours: bool,
}

impl Redirection {
    pub(crate) fn new(client: Client, config: watch::Receiver<Arc<Config>>) -> Self {
        Self { client, config }
    }

    /// Follows pods and the configuration. Runs until dropped.
    pub(crate) async fn follow(&self) {
        // Their metadata alone is asked for.
        let all: Api<PartialObjectMeta<Pod>> = Api::all(self.client.clone());
        let mut events = pin!(watcher(all, What::default()).default_backoff());
        let mut config = self.config.clone();
        let mut pods: HashMap<String, SeenPod> = HashMap::new();
        let mut is_behind = false;
        loop {
            let again = async {
                if is_behind {
                    tokio::time::sleep(TRY_AGAIN).await;
                } else {
                    std::future::pending().await
                }
            };
            let one = tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(event) => match note(&mut pods, event) {
                        ToCorrect::One(uid) => Some(uid),
                        ToCorrect::All => None,
                        ToCorrect::Nothing => continue,
                    },
                    Err(error) => {
                        tracing::debug!(%error, "pods are not followed; it is tried again");
                        continue;
                    }
                },
                Ok(()) = config.changed() => None,
                () = again => None,
            };
            let snapshot = config.borrow().snapshot.clone();
            is_behind |= match one {
                Some(uid) => !self.correct(&snapshot, pods.get_key_value(&uid)).await,
                None => {
                    is_behind = false;
                    !self.correct(&snapshot, &pods).await
                }
            };
        }
    }

    /// Has these pods say how they are; false where one could not be written.
    async fn correct<'a>(
        &self,
        snapshot: &Snapshot,
        pods: impl IntoIterator<Item = (&'a String, &'a SeenPod)>,
    ) -> bool {
        let mut all_written = true;
        for (uid, seen) in pods {
            let workload = snapshot.workload(&seen.namespace, &seen.name);
            let is_it = |workload: &Workload| workload.uid == WorkloadUid::new(uid);
            let wanted = workload.is_some_and(|workload| is_it(workload) && workload.is_enrolled());
            let Some(correction) = correction(wanted, seen) else { continue };
            // Of this pod, and not of one that has its name now.
            let patch = json!({"metadata": {"uid": uid, "annotations": {KEY: correction.value()}}});
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &seen.namespace);
            let writer = PatchParams { field_manager: Some(WRITER.to_owned()), ..PatchParams::default() };
            match api.patch_status(&seen.name, &writer, &Patch::Merge(&patch)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if GONE.contains(&status.code) => {}
                Err(error) => {
                    tracing::warn!(pod = seen.name, namespace = seen.namespace, %error, "the pod does not say whether it is in the mesh; it is tried again");
                    all_written = false;
                }
            }
        }
        all_written
    }
}

/// What is to become of a pod's annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Correction {
    Write,
    Remove,
}

impl Correction {
    /// As it stands in a merge patch.
    fn value(self) -> Value {
        match self {
            Self::Write => ENABLED.into(),
            Self::Remove => Value::Null,
        }
    }
}

/// None where the annotation is as it ought to be.
const fn correction(wanted: bool, seen: &SeenPod) -> Option<Correction> {
    match (wanted, seen.is_enabled, seen.is_ours) {
        (true, false, _) => Some(Correction::Write),
        (false, true, true) => Some(Correction::Remove),
        (true, true, _) | (false, _, _) => None,
    }
}

/// Which pods are to be looked at.
enum ToCorrect {
    One(String),
    All,
    Nothing,
}

fn note(pods: &mut HashMap<String, SeenPod>, event: Event<PartialObjectMeta<Pod>>) -> ToCorrect {
    match event {
        Event::Init => pods.clear(),
        Event::InitApply(pod) => {
            let _ = keep(pods, &pod);
        }
        Event::InitDone => return ToCorrect::All,
        Event::Apply(pod) => return keep(pods, &pod).map_or(ToCorrect::Nothing, ToCorrect::One),
        Event::Delete(pod) => {
            pod.uid().map(|uid| pods.remove(&uid));
        }
    }
    ToCorrect::Nothing
}

fn keep(pods: &mut HashMap<String, SeenPod>, pod: &PartialObjectMeta<Pod>) -> Option<String> {
    let uid = pod.uid()?;
    pods.insert(uid.clone(), SeenPod::of(&pod.metadata));
    Some(uid)
}

impl SeenPod {
    fn of(metadata: &ObjectMeta) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let annotations = metadata.annotations.as_ref();
        let field = format!("f:{KEY}");
        let mut managed = metadata.managed_fields.iter().flatten();
        let is_ours = managed.any(|entry| {
            let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:metadata"]["f:annotations"]);
            entry.manager.as_deref() == Some(WRITER) && fields.is_some_and(|fields| fields.get(&field).is_some())
        });
        Self {
            namespace: text(&metadata.namespace),
            name: text(&metadata.name),
            is_enabled: annotations.and_then(|all| all.get(KEY)).is_some_and(|value| value == ENABLED),
            is_ours,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(annotation: Option<&str>, writer: &str) -> SeenPod {
        let annotations = annotation.map(|value| json!({KEY: value}));
        let fields = json!({"f:metadata": {"f:annotations": {"f:ambient.istio.io/redirection": {}}}});
        let metadata = json!({
            "name": "cart", "namespace": "shop", "annotations": annotations,
            "managedFields": [{"manager": "kubelet"}, {"manager": writer, "fieldsV1": fields}],
        });
        SeenPod::of(&serde_json::from_value(metadata).unwrap())
    }

    #[test]
    fn a_pod_says_that_it_is_in_the_mesh_for_as_long_as_it_is() {
        assert_eq!(correction(true, &seen(None, "other")), Some(Correction::Write));
        assert_eq!(correction(true, &seen(Some("disabled"), "other")), Some(Correction::Write));
        assert_eq!(correction(true, &seen(Some(ENABLED), WRITER)), None);
        assert_eq!(correction(false, &seen(Some(ENABLED), WRITER)), Some(Correction::Remove));
        assert_eq!(correction(false, &seen(None, WRITER)), None);
    }

    #[test]
    fn what_istios_agent_has_written_is_left_alone() {
        assert_eq!(correction(false, &seen(Some(ENABLED), "istio-cni")), None);
        assert_eq!(correction(true, &seen(Some(ENABLED), "istio-cni")), None);
    }
}
