//! What a client may say instead of a TLS 1.3 ClientHello.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::peer::PATIENCE;

/// The first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FirstBytes {
    /// An HTTP/1.1 request
    Http,
    /// HTTP/2 without TLS
    Http2,
    /// Bytes of no meaning
    Noise,
    /// A TLS record that claims more than a record may hold
    LongRecord,
    /// TLS records of handshake type without content, again and again
    EmptyRecords,
    /// None, and the connection stays open
    Nothing,
    /// None, and the connection is closed at once, as port scanners do
    Close,
    /// Half of a ClientHello, then the end
    HalfHello,
}

/// Says it and tells how the server ended the connection.
pub(crate) async fn say(to: SocketAddr, what: FirstBytes, config: Arc<ClientConfig>) -> Result<String> {
    let mut stream = TcpStream::connect(to).await.context("connecting")?;
    let bytes = match what {
        FirstBytes::Http => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        FirstBytes::Http2 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        FirstBytes::Noise => noise(4096),
        FirstBytes::LongRecord => [&[0x16, 3, 1, 0xff, 0xff][..], &[1; 4096]].concat(),
        FirstBytes::EmptyRecords => [0x16, 3, 1, 0, 0].repeat(100_000),
        FirstBytes::Nothing => Vec::new(),
        FirstBytes::Close => return Ok("closed by us".to_owned()),
        FirstBytes::HalfHello => hello(config)?[..100].to_vec(),
    };
    // The server may refuse before it has read all.
    let _ = stream.write_all(&bytes).await;
    if what == FirstBytes::HalfHello {
        stream.shutdown().await?;
    }
    Ok(ending(&mut stream).await)
}

/// Reads to the end.
async fn ending(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match timeout(PATIENCE, stream.read_to_end(&mut answer)).await {
        Err(_) => "open".to_owned(),
        // Alert record, fatal.
        Ok(_) if answer.starts_with(&[0x15]) => format!("alert {}", answer.get(6).copied().unwrap_or_default()),
        Ok(Ok(_)) if answer.is_empty() => "end".to_owned(),
        Ok(Ok(count)) => format!("{count} octets, end"),
        Ok(Err(error)) => format!("{:?}", error.kind()),
    }
}

/// A whole ClientHello.
pub(crate) fn hello(config: Arc<ClientConfig>) -> Result<Vec<u8>> {
    let name = ServerName::IpAddress(std::net::IpAddr::from([192, 0, 2, 1]).into());
    let mut client = ClientConnection::new(config, name)?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    Ok(bytes)
}

/// Bytes of no meaning, the same each time; the first is that of no TLS record.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    std::iter::once(0xf0).chain(std::iter::repeat_with(&mut next)).take(count).collect()
}
