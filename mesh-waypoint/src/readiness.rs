//! The readiness probe: ready until the waypoint drains.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::serve::Shared;

/// How long a probe may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Probes answered at once.
const MAX_PROBES: usize = 64;

/// The listener for probes.
pub(crate) struct Readiness(TcpListener);

impl Readiness {
    /// Listens.
    ///
    /// # Errors
    /// The address cannot be had.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    /// Answers probes, 200 or 503, for good.
    pub(crate) async fn serve(self, shared: &Shared) {
        let mut probes = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.0.accept(), if probes.len() < MAX_PROBES => match accepted {
                    Ok((stream, _)) => {
                        let ready = !*shared.draining.borrow();
                        probes.spawn_local(timeout(PATIENCE, answer(stream, ready)));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "probe not accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(_) = probes.join_next(), if !probes.is_empty() => {}
            }
        }
    }
}

/// Whatever is asked, the answer is the same.
async fn answer(mut stream: TcpStream, ready: bool) -> io::Result<()> {
    let mut head = [0; 1024];
    // What a prober asks fits into one segment.
    let _ = stream.read(&mut head).await?;
    let text: &[u8] = if ready {
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    } else {
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    };
    stream.write_all(text).await?;
    stream.shutdown().await
}
