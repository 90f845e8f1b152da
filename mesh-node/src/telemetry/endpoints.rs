//! The HTTP endpoints for people and machines that watch the daemon: metrics and readiness.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use mesh_admin_server::{EndpointError, METRICS, READINESS, serve_metrics, serve_readiness};
use tokio::{net::TcpListener, sync::watch};

use super::Metrics;

/// The opened endpoints.
pub struct Endpoints {
    metrics: TcpListener,
    readiness: TcpListener,
}

impl Endpoints {
    /// Opens both listeners in the node's own namespace, or takes them from those that an earlier daemon `lent`.
    ///
    /// # Errors
    /// An address is taken or not the node's.
    pub async fn open(
        metrics: SocketAddr,
        readiness: SocketAddr,
        mut lent: Vec<std::net::TcpListener>,
    ) -> Result<Self, EndpointError> {
        let mut lent = |address| {
            let found = lent.iter().position(|listener| listener.local_addr().is_ok_and(|known| known == address));
            found.map(|place| lent.swap_remove(place))
        };
        Ok(Self {
            metrics: METRICS.open(metrics, lent(metrics)).await?,
            readiness: READINESS.open(readiness, lent(readiness)).await?,
        })
    }

    /// Duplicates of both, for a successor.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn duplicates(&self) -> io::Result<[OwnedFd; 2]> {
        Ok([self.metrics.as_fd().try_clone_to_owned()?, self.readiness.as_fd().try_clone_to_owned()?])
    }

    /// Serves until dropped.
    pub async fn serve(self, metrics: Arc<Metrics>, ready: watch::Receiver<bool>) {
        let unready = move || (!*ready.borrow()).then_some("pods have not been compared with the configuration yet");
        tokio::join!(serve_metrics(self.metrics, move || metrics.encode()), serve_readiness(self.readiness, unready));
    }
}
