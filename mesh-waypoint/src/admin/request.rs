//! What becomes of a request that nobody sends, and which endpoints are out for it just now.

use mesh_admin::{Ejected, MAX_EJECTED, RequestWhy};
use mesh_admin_server::{Answer, Asked, Query, request};
use mesh_core::{Snapshot, l7::GATEWAY_NAME, why::SameNode};

use super::{
    Admin,
    clusters::{cause_in_words, seconds},
};
use crate::upstream::{ClusterView, EndpointView};

impl Admin {
    /// Answers by the configuration, and by what this replica knows of endpoints.
    pub(super) fn request(&self, query: &Query) -> Answer {
        let config = self.configuration();
        let snapshot = &*config.snapshot;
        let complete = |answer: &mut RequestWhy| self.tell_ejected(answer, snapshot);
        let reader = self.shared.own.workload(snapshot);
        request(query, snapshot, SameNode::Direct, Some(&Asked { reader, complete: &complete }))
    }

    /// Which endpoints of the request's backends this replica leaves out; of what another waypoint or gateway reads it knows nothing.
    fn tell_ejected(&self, answer: &mut RequestWhy, snapshot: &Snapshot) {
        let own = &self.shared.own;
        let reads = |namespace: &str, name: &str| {
            let by = answer.waypoint.as_ref().or(answer.gateway.as_ref());
            by.and_then(|by| by.split_once('/')).is_some_and(|by| by == (namespace, name))
        };
        let pod = own.workload(snapshot);
        let as_pod = |name: &str| pod.is_some_and(|pod| reads(&pod.namespace, name));
        let by_pod = pod.is_some_and(|pod| as_pod(pod.labels.get(GATEWAY_NAME).unwrap_or(&pod.workload_name)));
        if answer.backends.is_empty() || !(by_pod || reads(&own.gateway.namespace, &own.gateway.name)) {
            return;
        }
        let name = |pod: &mesh_core::Workload| format!("{}/{}", pod.namespace, pod.name);
        let at = pod.map_or_else(|| own.gateway.to_string(), |pod| name(pod));
        let used = self.shared.clusters.used();
        for backend in &mut answer.backends {
            let Some((key, state)) = used.iter().find(|(key, _)| key.to_string() == backend.to) else { continue };
            let view = ClusterView::of(key, snapshot, (own, &self.shared.names), Some(state));
            let ejected = |endpoint: EndpointView| {
                let health = endpoint.health?;
                Some(Ejected {
                    endpoint: endpoint.address.to_string(),
                    pod: endpoint.workload.as_deref().map(name),
                    at: at.clone(),
                    why: health.cause.map(cause_in_words).unwrap_or_default().to_owned(),
                    returns_in_seconds: seconds(health.out_for?),
                })
            };
            let endpoints = view.and_then(|view| view.endpoints.ok()).unwrap_or_default();
            backend.ejected = endpoints.into_iter().filter_map(ejected).take(MAX_EJECTED).collect();
        }
        answer.asked.push(at);
    }
}
