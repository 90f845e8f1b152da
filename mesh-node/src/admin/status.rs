//! The daemon in short.

use std::time::{Instant, SystemTime};

use mesh_admin::{
    Config, ControlState, DataPath, Draining, EnrolmentEvent, Handover, Hook, MAX_WAITING, Pods, PodsFound, Status,
    WaitingPod,
};
use mesh_xds::Standing;

use super::Admin;
use crate::{handover::HandoverState, nri::Discovery, pods::Roster, repairs};

impl Admin {
    /// How the daemon is now.
    pub(super) async fn status(&self) -> Status {
        let workers = self.workers.upgrade();
        let connections = match &workers {
            Some(workers) => workers.carried().await,
            // The daemon is ending.
            None => 0,
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.to_string(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            kernel: self.hooks.kernel().to_owned(),
            data_path: self.data_path(),
            config: Config {
                control: self.shared.control.as_ref().map(|progress| control(&progress.standing())),
                ..mesh_admin_server::config(&self.shared.config())
            },
            pods: Pods { found: found(&self.shared.nri.borrow()), ..pods(&self.pods.roster.borrow(), Instant::now()) },
            certificates: mesh_admin_server::certificates(&self.shared.identities.certificates()),
            workers: workers.map_or(0, |workers| workers.count()),
            connections: connections + self.shared.direct.views().len(),
            handover: handover(&self.shared.handover),
            events: self.shared.enrolment_events.recent().iter().map(event).collect(),
        }
    }

    fn data_path(&self) -> DataPath {
        let hooks = self.hooks.present().into_iter();
        DataPath {
            pod_hooks: self.hooks.pod_hooks().to_owned(),
            cgroup: self.hooks.cgroup().display().to_string(),
            same_node: if self.shared.direct.is_enabled() { "direct" } else { "mtls" }.to_owned(),
            hooks: hooks.map(|(name, present)| Hook { name: name.to_owned(), present }).collect(),
        }
    }
}

/// How far this node is with what mesh-control serves.
fn control(standing: &Standing) -> ControlState {
    ControlState {
        connected: standing.connected.clone(),
        version: standing.version.map(|version| version.to_string()),
        rejected: standing.rejected,
    }
}

fn handover(state: &HandoverState) -> Handover {
    let draining = state.draining().into_iter();
    Handover {
        generation: state.generation(),
        restarts: state.restarts(),
        draining: draining.map(|(pid, time)| Draining { pid, for_seconds: time.as_secs() }).collect(),
        successor: state.lending_to(),
    }
}

fn pods(roster: &Roster, now: Instant) -> Pods {
    let waiting = roster.waiting.values().take(MAX_WAITING).map(|waiting| WaitingPod {
        namespace: waiting.namespace.to_string(),
        name: waiting.name.to_string(),
        state: waiting.state().to_owned(),
        reason: waiting.reason.clone(),
        for_seconds: now.saturating_duration_since(waiting.since).as_secs(),
    });
    Pods {
        desired: roster.desired,
        enrolled: roster.enrolled,
        pending: roster.waiting.len(),
        failed: roster.waiting.values().filter(|waiting| waiting.failed).count(),
        existing_connections: roster.existing.values().sum(),
        found: None,
        waiting: waiting.collect(),
    }
}

fn found(discovery: &Discovery) -> Option<PodsFound> {
    let (by, detail) = match discovery {
        Discovery::Unknown => return None,
        Discovery::Asked(runtime) => ("nri", format!("{} {}", runtime.name, runtime.version)),
        Discovery::Cgroups(reason) => ("cgroups", reason.clone()),
    };
    Some(PodsFound { by: by.to_owned(), detail })
}

fn event(event: &repairs::EnrolmentEvent) -> EnrolmentEvent {
    let since = event.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    EnrolmentEvent {
        at_milliseconds: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        pod: event.pod.clone(),
        event: event.what.as_str().to_owned(),
        detail: event.what.detail(),
    }
}
