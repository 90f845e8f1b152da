//! Carries connections: out of pods, into pods over HBONE, and into pods at their applications' own ports, as plaintext or by
//! the mutual TLS of Istio's sidecars.

mod admission;
mod baggage;
mod hbone;
mod outbound;
mod plaintext;
mod sidecar;
mod source_gone;
mod unreached;

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use tokio::net::TcpStream;

pub use admission::rejudge;
pub use unreached::Unreached;

use crate::{pods::EnrolledPod, workers::Worker};

/// Which of a pod's listeners accepted a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An application's connection that the connect hook redirected.
    Outbound,
    /// A new flow to an application's own port, which TC steered.
    Plaintext,
    /// A tunnel from another node agent.
    Hbone,
}

/// Carries one connection, which accept() said was from `peer`, to its end.
pub async fn carry(worker: Rc<Worker>, pod: Arc<EnrolledPod>, kind: Kind, stream: TcpStream, peer: SocketAddr) {
    // Only throughput of small writes depends on it.
    let _ = stream.set_nodelay(true);
    match kind {
        Kind::Outbound => outbound::carry(&worker, &pod, stream, peer).await,
        Kind::Plaintext => plaintext::carry(&worker, &pod, stream, peer).await,
        Kind::Hbone => hbone::serve(worker, pod, stream, peer).await,
    }
}
