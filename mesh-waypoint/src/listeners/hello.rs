//! The first message of a client of TLS, by which its listener is chosen. It is read, and not yet answered.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use mesh_transport::proxy_protocol;
use rustls::server::Acceptor;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};

/// Bytes of it; a record of TLS has 16 KiB, and clients' lists of key shares take a few.
const MAX_HELLO: usize = 32 << 10;
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client says of itself.
#[derive(Debug)]
pub(super) struct Hello {
    /// The server that it asks for (RFC 6066, section 3), in lower case.
    pub(super) server: Option<Arc<str>>,
    /// What was read, for whoever answers.
    pub(super) read: Bytes,
}

/// Why there is no such message.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoHello {
    /// A header of the PROXY protocol came instead.
    #[error("a header of the PROXY protocol came, and nobody has asked for one (gatewayTopology.proxyProtocol)")]
    Proxied,
    /// It is none, too long, took too long, or broke off.
    #[error(transparent)]
    Other(#[from] io::Error),
}

/// Reads it.
///
/// # Errors
/// See [`NoHello`].
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Hello, NoHello> {
    let mut read = BytesMut::with_capacity(2048);
    let server = timeout(PATIENCE, server(stream, &mut read)).await.map_err(io::Error::from)??;
    Ok(Hello { server, read: read.freeze() })
}

/// The same of a client that may speak something else, or wait for its server's first word: the server that it names, where it
/// speaks TLS, and what was read.
pub(crate) async fn look(stream: &mut (impl AsyncRead + Unpin)) -> (Option<Option<Arc<str>>>, Bytes) {
    let mut read = BytesMut::with_capacity(2048);
    let named = timeout(PATIENCE, server(stream, &mut read)).await;
    (named.ok().and_then(Result::ok), read.freeze())
}

/// The server that the client names; what is read is added to `read`.
async fn server(stream: &mut (impl AsyncRead + Unpin), read: &mut BytesMut) -> Result<Option<Arc<str>>, NoHello> {
    let mut acceptor = Acceptor::default();
    let mut seen = 0;
    loop {
        if read.len() > MAX_HELLO {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client's first message is too long").into());
        }
        if stream.read_buf(read).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if proxy_protocol::begins_like_one(read) {
            return Err(NoHello::Proxied);
        }
        while seen < read.len() {
            seen += acceptor.read_tls(&mut &read[seen..])?;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                return Ok(accepted.client_hello().server_name().map(|name| name.to_ascii_lowercase().into()));
            }
            Err((error, _)) => return Err(io::Error::new(io::ErrorKind::InvalidData, error).into()),
        }
    }
}
