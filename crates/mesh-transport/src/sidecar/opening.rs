//! How a client begins: a sidecar's mutual TLS is told from everything else before anybody answers.

use std::io;

use rustls::server::Acceptor;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The type of the record with which TLS begins (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
/// Bytes of a ClientHello that are looked at first: nearly all have fewer.
const USUAL_HELLO: usize = 2 << 10;
/// The most; what is longer is no sidecar's.
const MAX_HELLO: usize = 16 << 10;

/// What a client's first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// The beginning of a sidecar's mutual TLS.
    Sidecar,
    /// Something else.
    Other,
}

/// Looks at a client's first bytes, once there are enough of them, and leaves them unread.
///
/// Whoever drops the future before it resolves has to take the socket [`anew`]: what was looked at may not count as new any
/// more.
pub async fn opening(stream: &TcpStream) -> Opening {
    // A socket that cannot be read is for whoever reads it to find out.
    look(stream).await.unwrap_or(Opening::Other)
}

/// The same socket, at which all that has come and was not read counts as new.
///
/// # Errors
/// When the kernel does not let it be waited for.
pub fn anew(stream: TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(stream.into_std()?)
}

async fn look(stream: &TcpStream) -> io::Result<Opening> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 || first != [HANDSHAKE] {
        return Ok(Opening::Other);
    }
    let mut hello = vec![0; USUAL_HELLO];
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let count = stream.peek(&mut hello).await?;
        if let Some(opening) = recognise(&hello[..count]) {
            return Ok(opening);
        }
        if count < hello.len() && !ready.is_read_closed() {
            // Waits for what comes next, as if these had been read.
            let _ = stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        } else if count == hello.len() && count < MAX_HELLO {
            hello.resize(MAX_HELLO, 0);
        } else {
            return Ok(Opening::Other);
        }
    }
}

/// What these bytes begin. `None` while there are too few to say.
fn recognise(bytes: &[u8]) -> Option<Opening> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Some(Opening::Other);
        }
    }
    match acceptor.accept() {
        Ok(None) => None,
        Ok(Some(accepted)) => {
            let is_sidecars = accepted.client_hello().alpn().is_some_and(|mut offered| offered.any(is_istios));
            Some(if is_sidecars { Opening::Sidecar } else { Opening::Other })
        }
        Err(_) => Some(Opening::Other),
    }
}

fn is_istios(protocol: &[u8]) -> bool {
    protocol.strip_prefix(b"istio").is_some_and(|rest| rest.is_empty() || rest.starts_with(b"-"))
}

#[cfg(test)]
mod tests;
