//! The waypoint in short.

use std::{sync::atomic::Ordering, time::SystemTime};

use mesh_admin::{Config, ControlState, WaypointStatus, WaypointThread};
use mesh_admin_server::{certificates, config, seconds_until};
use mesh_xds::Standing;

use super::Admin;

impl Admin {
    /// How it is now.
    pub(super) fn status(&self) -> WaypointStatus {
        let shared = &self.shared;
        let held = shared.identities.certificates();
        let own = held.iter().find(|held| held.identity == shared.identity);
        let end = own.and_then(|own| own.not_after);
        let mut ports: Vec<u16> = shared.listeners.borrow().ports().map(|port| port.number).collect();
        ports.sort_unstable();
        let threads = shared.threads.now().into_iter();
        WaypointStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            gateway: shared.own.gateway.to_string(),
            pod: shared.own.pod.as_ref().map(ToString::to_string),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            identity: shared.identity.to_string(),
            certificate_expires_in_seconds: end.map(|end| seconds_until(end, SystemTime::now())),
            certificate_error: certificates(&held).errors.into_iter().next(),
            config: Config {
                control: shared.control.as_ref().map(|progress| control(&progress.standing())),
                ..config(&shared.config.borrow())
            },
            ports,
            connections: shared.connections.load(Ordering::Relaxed),
            threads: threads.map(|(active, served)| WaypointThread { active, served }).collect(),
            rate_limits: shared.limit_book.told(),
            draining: *shared.draining.borrow(),
        }
    }
}

/// How far it is with what mesh-control serves.
fn control(standing: &Standing) -> ControlState {
    ControlState {
        connected: standing.connected.clone(),
        version: standing.version.map(|version| version.to_string()),
        rejected: standing.rejected,
    }
}
