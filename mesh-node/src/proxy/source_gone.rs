//! A tunnel ends with the workload that opened it, also where its node does not say so.

use std::{net::IpAddr, sync::Arc, time::Duration};

use mesh_config::Config;
use mesh_core::{Snapshot, SpiffeId};
use mesh_transport::hbone::TunnelEnd;
use tokio::{sync::watch, time::Instant};

/// How long a source may be missing from the configuration before its tunnels end: a manifest that is replaced may be gone
/// for a moment, and a pod's removal and its successor may come in two updates.
const GRACE: Duration = Duration::from_secs(2);

/// Waits until the workload with this identity at this address, which opened a tunnel, is gone for good.
///
/// A source that the configuration has never shown is none of this function's business: it may be of another cluster, or so new
/// that the configuration has yet to tell of it; its certificate stands for it.
pub(super) async fn until_gone(
    mut config: watch::Receiver<Arc<Config>>,
    address: IpAddr,
    identity: &SpiffeId,
) -> TunnelEnd {
    let mut was_known = false;
    let mut missing_since: Option<Instant> = None;
    loop {
        let is_known = knows(&config.borrow_and_update().snapshot, address, identity);
        was_known |= is_known;
        let is_missing = was_known && !is_known;
        missing_since = if is_missing { missing_since.or_else(|| Some(Instant::now())) } else { None };
        let graced = async {
            match missing_since {
                Some(since) => tokio::time::sleep_until(since + GRACE).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = config.changed() => if changed.is_err() {
                // The last good configuration stays in force.
                return std::future::pending().await;
            },
            () = graced => return TunnelEnd::WorkloadGone(format!("{identity} at {address}")),
        }
    }
}

fn knows(snapshot: &Snapshot, address: IpAddr, identity: &SpiffeId) -> bool {
    snapshot.workload_by_address(address).is_some_and(|workload| workload.identity == *identity)
}
