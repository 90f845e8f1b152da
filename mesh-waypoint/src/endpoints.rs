//! What machines ask that watch the waypoint: Prometheus for metrics, kubelet whether it is ready, which it is until it drains.

use std::net::SocketAddr;

use mesh_admin_server::{EndpointError, METRICS, READINESS, serve_metrics, serve_readiness};
use tokio::net::TcpListener;

use crate::serve::Shared;

/// The opened endpoints.
pub(crate) struct Endpoints {
    metrics: TcpListener,
    readiness: TcpListener,
}

impl Endpoints {
    /// Listens.
    ///
    /// # Errors
    /// An address is taken, or none of this machine.
    pub(crate) async fn open(metrics: SocketAddr, readiness: SocketAddr) -> Result<Self, EndpointError> {
        Ok(Self { metrics: METRICS.open(metrics, None).await?, readiness: READINESS.open(readiness, None).await? })
    }

    /// Serves for good.
    pub(crate) async fn serve(self, shared: &Shared) {
        let (telemetry, draining) = (shared.telemetry.clone(), shared.draining.subscribe());
        let unready = move || draining.borrow().then_some("it drains");
        tokio::join!(serve_metrics(self.metrics, move || telemetry.encode()), serve_readiness(self.readiness, unready));
    }
}
