//! What happens to the node's pods in the mesh, told as Events on them: `kubectl describe pod` is where people look first.

use std::sync::Arc;

use mesh_core::{NodeName, Workload};
use mesh_kube::{About, Events, Occurrence};
use tokio::sync::mpsc;

use crate::{
    args::Args,
    node::Shared,
    repairs::{EnrolmentChange, EnrolmentEvent},
};

/// Tells those from here on, where that is asked for. Runs until dropped.
pub fn tell(args: &Args, shared: &Arc<Shared>) -> impl Future<Output = ()> + use<> {
    // Before anything happens.
    let happened = args.events.then(|| shared.enrolment_events.follow());
    let (kubeconfig, node, shared) = (args.kubeconfig.clone(), args.node.clone(), shared.clone());
    async move {
        if let Some(happened) = happened {
            match mesh_kube::client(kubeconfig.as_deref()).await {
                Ok(client) => follow(happened, &Events::by("mesh-node", &node, client), &node, &shared).await,
                Err(error) => tracing::error!(%error, "--events: none is written"),
            }
        }
        std::future::pending().await
    }
}

async fn follow(mut happened: mpsc::Receiver<EnrolmentEvent>, events: &Events, node: &str, shared: &Shared) {
    while let Some(event) = happened.recv().await {
        let Some(occurrence) = occurrence(&event) else { continue };
        let (snapshot, own) = (shared.snapshot(), NodeName::from(node));
        let about = match &event.pod {
            None => Some(About::Node(node)),
            Some(pod) => about(pod, snapshot.workloads_on(&own)),
        };
        // A pod that is gone meanwhile has nobody to look at it.
        let Some(about) = about else { continue };
        if let Err(error) = events.tell(about, occurrence).await {
            tracing::debug!(pod = event.pod, what = event.what.as_str(), error, "Event not written");
        }
    }
}

/// A pod by its `namespace/name`.
fn about<'a>(pod: &str, of_node: impl IntoIterator<Item = &'a Arc<Workload>>) -> Option<About<'a>> {
    let (namespace, name) = pod.split_once('/')?;
    let pod = of_node.into_iter().find(|pod| *pod.namespace == *namespace && *pod.name == *name)?;
    Some(About::Pod { namespace: &pod.namespace, name: &pod.name, uid: pod.uid.to_string() })
}

/// What is worth an Event, in words.
fn occurrence(event: &EnrolmentEvent) -> Option<Occurrence> {
    let (is_warning, reason, note) = match &event.what {
        // Each restart of the daemon would tell it of every pod.
        EnrolmentChange::Enrolled { again: true } => return None,
        EnrolmentChange::Enrolled { again: false } => (false, "MeshJoined", "The pod is in the mesh".to_owned()),
        EnrolmentChange::Withdrawn => (false, "MeshLeft", "The pod is no longer in the mesh".to_owned()),
        EnrolmentChange::Failed { error } => (
            true,
            "MeshJoinFailed",
            format!("Not in the mesh; new connections are refused, and it is tried again: {error}"),
        ),
        EnrolmentChange::Repaired { part, detail } => {
            (true, "MeshRepaired", format!("Had vanished, and is there again: {}: {detail}", part.as_str()))
        }
        EnrolmentChange::NotRepaired { error } => {
            (true, "MeshRepairFailed", format!("Has vanished, and is not back; it is tried again: {error}"))
        }
        EnrolmentChange::Existing { detail } => (false, "MeshConnectionsJudged", detail.clone()),
    };
    Some(Occurrence { is_warning, reason, note })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::repairs::Part;

    fn of(what: EnrolmentChange) -> Option<Occurrence> {
        occurrence(&EnrolmentEvent { at: SystemTime::UNIX_EPOCH, pod: None, what })
    }

    #[test]
    fn what_went_wrong_is_a_warning_and_a_restart_is_no_news() {
        assert_eq!(of(EnrolmentChange::Enrolled { again: true }), None);
        let joined = of(EnrolmentChange::Enrolled { again: false }).unwrap();
        assert_eq!((joined.is_warning, joined.reason), (false, "MeshJoined"));
        let repaired = of(EnrolmentChange::Repaired { part: Part::Listener, detail: "15001".into() }).unwrap();
        assert!(repaired.is_warning && repaired.note.ends_with("listener: 15001"), "{repaired:?}");
        let failed = of(EnrolmentChange::Failed { error: "no namespace".into() }).unwrap();
        assert!(failed.is_warning && failed.note.contains("no namespace"), "{failed:?}");
    }
}
