//! The little HTTP that probes and scrapes need.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// How long connecting, and each read and write, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// GETs a path and returns the status code and the body. HTTP/1.0, so that the body ends with the connection.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream =
        TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(|| format!("asking {address} for {path}"))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).with_context(|| format!("reading {path} of {address}"))?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("{address} answered no HTTP: {text:?}"))?;
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).with_context(|| format!("no status in {head:?}"))?;
    Ok((status, body.to_owned()))
}
