//! What a client speaks, by its first bytes.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use mesh_transport::proxy_protocol;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};

use super::arrival::Declared;

/// The first bytes of a client of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes looked at: a longer first line that begins as HTTP's is taken for that, and its parser says what is wrong.
const ENOUGH: usize = 8 << 10;
/// The longest method that is taken for one.
const MAX_METHOD: usize = 32;
/// The head of the frame that follows it (the same section): SETTINGS of the connection, which acknowledge nothing.
const FIRST_FRAME: usize = 9;
/// How long a client that has begun may take until it is clear what it speaks.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sniffed {
    /// HTTP/1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// What begins as HTTP/2 does, and is none.
    NoHttp2,
    /// A header of the PROXY protocol, which nobody has asked for here.
    Proxied,
    /// Something else.
    Other,
}

/// Reads until it is clear what the client speaks; returns that, and what was read. `silent` resolves when a client that has said
/// nothing has been silent for too long. Not taken for TCP then: what a policy says of requests would not hold.
pub(super) async fn sniff(
    stream: &mut (impl AsyncRead + Unpin),
    declared: Declared,
    silent: impl Future<Output = ()>,
) -> io::Result<(Sniffed, Bytes)> {
    // Nothing is allocated for a client that has not said anything.
    let mut first = [0; 256];
    let count = tokio::select! {
        count = stream.read(&mut first) => count?,
        () = silent => return Err(io::ErrorKind::TimedOut.into()),
    };
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut read = BytesMut::from(&first[..count]);
    let more = async {
        loop {
            if let Some(sniffed) = classify(&read, declared) {
                return Ok(sniffed);
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(if declared == Declared::Http { Sniffed::Http1 } else { Sniffed::Other });
            }
        }
    };
    let sniffed = timeout(PATIENCE, more).await?;
    sniffed.map(|sniffed: Sniffed| (sniffed, read.freeze())).map_err(|error: io::Error| error)
}

/// None while more bytes may change it.
fn classify(read: &[u8], declared: Declared) -> Option<Sniffed> {
    let common = read.len().min(PREFACE.len());
    if read[..common] == PREFACE[..common] {
        let frame = read.get(PREFACE.len()..PREFACE.len() + FIRST_FRAME)?;
        return Some(if is_settings(frame) { Sniffed::Http2 } else { Sniffed::NoHttp2 });
    }
    if declared == Declared::Http {
        let is_proxied = proxy_protocol::begins_like_one(read);
        return Some(if is_proxied { Sniffed::Proxied } else { Sniffed::Http1 });
    }
    // RFC 9112, section 2.2: a server should ignore an empty line before a request.
    let line = read.strip_prefix(b"\r\n").unwrap_or(read);
    let method = line.iter().take_while(|byte| is_token(**byte)).count();
    if method == line.len() && method <= MAX_METHOD {
        return None;
    }
    if method == 0 || method > MAX_METHOD || line[method] != b' ' {
        return Some(Sniffed::Other);
    }
    match line.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
            let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            Some(if version.starts_with(b"HTTP/") { Sniffed::Http1 } else { Sniffed::Other })
        }
        None if read.len() >= ENOUGH => Some(Sniffed::Http1),
        None => None,
    }
}

/// Whether the head of a frame is that of SETTINGS which a client begins with (RFC 9113, sections 3.4 and 6.5).
fn is_settings(head: &[u8]) -> bool {
    const SETTINGS: u8 = 4;
    let [_, _, _, kind, flags, stream @ ..] = head else { return false };
    // The highest bit of a stream's number means nothing.
    let is_of_connection = matches!(stream, [0 | 0x80, 0, 0, 0]);
    *kind == SETTINGS && flags & 1 == 0 && is_of_connection
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        for (read, expected) in [
            (&b"G"[..], None),
            (b"GET", None),
            (b"GET /", None),
            (b"GET / HTTP/1.1\r\n", Some(Sniffed::Http1)),
            (b"\r\nGET / HTTP/1.1\r\n", Some(Sniffed::Http1)),
            (b"PURGE /a HTTP/1.0\n", Some(Sniffed::Http1)),
            (b"PRI * HT", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0", Some(Sniffed::Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\x01\0\0\0\0", Some(Sniffed::NoHttp2)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x08\x06\0\0\0\0\0", Some(Sniffed::NoHttp2)),
            (b"PRI * HTTP/1.1\r\n", Some(Sniffed::Http1)),
            (b"\x16\x03\x01", Some(Sniffed::Other)),
            (b"PING\r\n", Some(Sniffed::Other)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Sniffed::Other)),
            (b"EHLO client.example\r\n", Some(Sniffed::Other)),
            (b"SSH-2.0-x\r\n", Some(Sniffed::Other)),
        ] {
            assert_eq!(classify(read, Declared::Unknown), expected, "{:?}", String::from_utf8_lossy(read));
        }
    }

    #[test]
    fn a_port_that_is_declared_to_be_http_is_never_passed_through() {
        for read in [&b"\x16\x03\x01"[..], b"PING\r\n", b"\0"] {
            assert_eq!(classify(read, Declared::Http), Some(Sniffed::Http1), "its parser answers 400");
        }
        assert_eq!(classify(b"PROXY TCP4 203.0.113.7 ", Declared::Http), Some(Sniffed::Proxied));
    }
}
