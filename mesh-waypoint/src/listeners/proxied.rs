//! The header of the PROXY protocol, with which every connection begins where a load balancer before the gateway writes one.

use std::{io, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use mesh_transport::proxy_protocol::{self, Parsed, ProxyProtocolError};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};

/// How long it may take. It is the first that a balancer sends.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no such header.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotProxied {
    /// What came is none.
    #[error(transparent)]
    Malformed(#[from] ProxyProtocolError),
    /// The connection ended with nothing said, as those of health checks do.
    #[error("nothing was said")]
    Silent,
    /// It took too long.
    #[error("the PROXY protocol's header did not come in time")]
    Late,
    /// The connection broke, or ended within the header.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// Reads it: where the connection comes from, if the balancer says that, and what was read beyond.
///
/// # Errors
/// See [`NotProxied`].
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<(Option<SocketAddr>, Bytes), NotProxied> {
    timeout(PATIENCE, whole(stream)).await.unwrap_or(Err(NotProxied::Late))
}

async fn whole(stream: &mut (impl AsyncRead + Unpin)) -> Result<(Option<SocketAddr>, Bytes), NotProxied> {
    // What is read at once is bounded, and so is a header: nothing here grows beyond the two together.
    let mut read = BytesMut::with_capacity(512);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(if read.is_empty() {
                NotProxied::Silent
            } else {
                io::Error::from(io::ErrorKind::UnexpectedEof).into()
            });
        }
        match proxy_protocol::parse(&read)? {
            Parsed::Incomplete => read.reserve(512),
            Parsed::Header { source, length } => return Ok((source, read.split_off(length).freeze())),
        }
    }
}
