//! Nodes without a ready daemon are kept from new pods by a taint: what starts before the daemon has attached its hooks is
//! in the mesh by its label alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::Client;
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use serde_json::json;

use crate::kubernetes;

/// The taint. kubelet's `--register-with-taints` gives it to nodes that are new.
pub(crate) const KEY: &str = "mesh.dev/agent-not-ready";
/// Pods that run go on: the daemon's hooks hold them while it is away.
const EFFECT: &str = "NoSchedule";
/// The label of the daemons' pods.
const DAEMONS: &str = "app.kubernetes.io/name=mesh-node";
/// Pause before what failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Keeps the taint of every node as its daemon is.
pub(crate) struct NodeTaint {
    nodes: Api<Node>,
    pods: Api<Pod>,
    daemon_sets: Api<DaemonSet>,
    /// The daemons' DaemonSet.
    daemon_set: String,
}

impl NodeTaint {
    /// For the daemons of a DaemonSet.
    pub(crate) fn new(client: &Client, namespace: &str, daemon_set: String) -> Arc<Self> {
        Arc::new(Self {
            nodes: Api::all(client.clone()),
            pods: Api::namespaced(client.clone(), namespace),
            daemon_sets: Api::namespaced(client.clone(), namespace),
            daemon_set,
        })
    }

    /// Follows nodes and daemons. Runs until dropped.
    pub(crate) async fn follow(self: &Arc<Self>) {
        let controller = Controller::new(self.nodes.clone(), watcher::Config::default());
        let nodes = controller.store();
        let of_pod = |pod: Pod| Some(ObjectRef::new(pod.spec?.node_name.as_deref()?));
        let of_all = move |_: DaemonSet| nodes.state().into_iter().map(|node| ObjectRef::from_obj(&*node));
        let own = watcher::Config::default().fields(&format!("metadata.name={}", self.daemon_set));
        let later = |_: Arc<Node>, _: &kube::Error, _: Arc<Self>| Action::requeue(TRY_AGAIN);
        let running = controller
            .watches(self.pods.clone(), watcher::Config::default().labels(DAEMONS), of_pod)
            .watches(self.daemon_sets.clone(), own, of_all)
            .run(|node, taint| async move { taint.reconcile(&node).await }, later, Arc::clone(self));
        let failed = |node: &ObjectRef<DynamicObject>, error: &kube::Error| {
            tracing::warn!(%node, %error, "the node's taint is not as its daemon is; it is tried again");
        };
        let lost = |error: &dyn std::error::Error| tracing::debug!(%error, "nodes are not followed; it is tried again");
        kubernetes::report(running, failed, lost).await;
    }

    async fn reconcile(&self, node: &Node) -> Result<Action, kube::Error> {
        let name = node.name_any();
        let known = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let daemon_set = self.daemon_sets.get_opt(&self.daemon_set).await?;
        let is_expected = daemon_set.is_some_and(|daemon_set| expects(&daemon_set, node));
        let of_node = ListParams::default().labels(DAEMONS).fields(&format!("spec.nodeName={name}"));
        let is_missing = is_expected && !self.pods.list(&of_node).await?.iter().any(is_ready);
        let Some(taints) = corrected(&known, is_missing) else { return Ok(Action::await_change()) };
        // The list is one value: what others wrote meanwhile must not be lost.
        let patch = json!({"metadata": {"resourceVersion": node.resource_version()}, "spec": {"taints": taints}});
        self.nodes.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        tracing::info!(node = name, taint = KEY, tainted = is_missing, "the node's taint follows its daemon");
        Ok(Action::await_change())
    }
}

/// Whether a daemon is to run on a node: not where the release is being removed.
fn expects(daemon_set: &DaemonSet, node: &Node) -> bool {
    let nothing = BTreeMap::new();
    let wanted = daemon_set.spec.template.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    let labels = node.metadata.labels.as_ref().unwrap_or(&nothing);
    daemon_set.metadata.deletion_timestamp.is_none()
        && wanted.unwrap_or(&nothing).iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A node's taints as they ought to be; none where they are.
fn corrected(known: &[Taint], is_missing: bool) -> Option<Vec<Taint>> {
    let has = known.iter().any(|taint| taint.key == KEY);
    match (has, is_missing) {
        (true, true) | (false, false) => None,
        (false, true) => {
            let taint = Taint { key: KEY.to_owned(), effect: EFFECT.to_owned(), ..Taint::default() };
            Some(known.iter().cloned().chain([taint]).collect())
        }
        (true, false) => Some(known.iter().filter(|taint| taint.key != KEY).cloned().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, effect: &str) -> Taint {
        Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() }
    }

    #[test]
    fn only_our_taint_comes_and_goes() {
        let others = vec![taint("node.kubernetes.io/unschedulable", "NoSchedule")];
        assert_eq!(corrected(&others, false), None);
        let tainted = corrected(&others, true).unwrap();
        assert_eq!(tainted, [&others[..], &[taint(KEY, "NoSchedule")]].concat());
        assert_eq!(corrected(&tainted, true), None);
        assert_eq!(corrected(&tainted, false), Some(others));
    }

    #[test]
    fn one_that_kubelet_gave_with_another_effect_is_taken_back_as_well() {
        let registered = [taint(KEY, "NoExecute")];
        assert_eq!(corrected(&registered, true), None);
        assert_eq!(corrected(&registered, false), Some(Vec::new()));
    }

    #[test]
    fn daemons_are_expected_where_their_set_puts_them() {
        let set = |selector| -> DaemonSet {
            serde_json::from_value(json!({"metadata": {"name": "mesh-node"}, "spec": {"selector": {}, "template": {
                "spec": {"containers": [], "nodeSelector": selector}}}}))
            .unwrap()
        };
        let node: Node =
            serde_json::from_value(json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}}})).unwrap();
        assert!(expects(&set(json!({"kubernetes.io/os": "linux"})), &node));
        assert!(!expects(&set(json!({"kubernetes.io/os": "windows"})), &node));
        let mut leaving = set(json!({}));
        assert!(expects(&leaving, &node));
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert!(!expects(&leaving, &node));
    }

    #[test]
    fn a_daemon_that_is_about_to_go_is_not_ready() {
        let pod = |metadata, status| -> Pod {
            let conditions = json!([{"type": "Ready", "status": status}]);
            serde_json::from_value(json!({"metadata": metadata, "status": {"conditions": conditions}})).unwrap()
        };
        assert!(is_ready(&pod(json!({}), "True")));
        assert!(!is_ready(&pod(json!({}), "False")));
        assert!(!is_ready(&pod(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), "True")));
        assert!(!is_ready(&Pod::default()));
    }
}
