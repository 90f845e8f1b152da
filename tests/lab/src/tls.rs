//! TLS records as an observer on the wire sees them (RFC 8446, sections 4.1 and 5.1).

use std::net::SocketAddr;

use crate::stream::Stream;

const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const SERVER_NAME: u16 = 0;
const SUPPORTED_VERSIONS: u16 = 43;

/// A record: the type on the outside, and the length of its fragment in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsRecord {
    /// 20 change cipher spec, 21 alert, 22 handshake, 23 application data.
    pub kind: u8,
    /// The fragment's length.
    pub length: usize,
}

/// A TCP connection that speaks TLS from its first octet on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSession {
    /// Who sent the ClientHello.
    pub client: SocketAddr,
    /// Who answered.
    pub server: SocketAddr,
    /// The version that the server chose: 0x0304 is TLS 1.3. None where it sent no ServerHello.
    pub version: Option<u16>,
    /// The cipher suite that the server chose; 0x1301 is AES-128-GCM, 0x1302 AES-256-GCM, 0x1303 ChaCha20-Poly1305.
    pub cipher_suite: Option<u16>,
    /// The ClientHello names a server.
    pub has_server_name: bool,
    /// What the client sent.
    pub from_client: Vec<TlsRecord>,
    /// What the server sent.
    pub from_server: Vec<TlsRecord>,
}

impl TlsSession {
    /// The number of application data records of both directions. In TLS 1.3 these hide the rest of the handshake too.
    pub fn application_records(&self) -> usize {
        self.from_client.iter().chain(&self.from_server).filter(|record| record.kind == APPLICATION_DATA).count()
    }
}

/// The TLS sessions whose beginning was captured.
pub(crate) fn sessions(streams: &[Stream]) -> Vec<TlsSession> {
    streams.iter().enumerate().filter_map(|(at, stream)| session(stream, &streams[at + 1..])).collect()
}

fn session(stream: &Stream, later: &[Stream]) -> Option<TlsSession> {
    let sent = stream.parts.first().filter(|_| stream.from_start)?;
    let client_hello = hello(sent, CLIENT_HELLO)?;
    let answer = later.iter().find(|other| other.source == stream.destination && other.destination == stream.source);
    let answered = answer.and_then(|answer| answer.parts.first()).map(Vec::as_slice).unwrap_or_default();
    let server_hello = hello(answered, SERVER_HELLO);
    Some(TlsSession {
        client: stream.source,
        server: stream.destination,
        version: server_hello.as_ref().map(version),
        cipher_suite: server_hello.as_ref().map(|hello| hello.cipher_suite),
        has_server_name: client_hello.extension(SERVER_NAME).is_some(),
        from_client: records(sent).map(|(record, _)| record).collect(),
        from_server: records(answered).map(|(record, _)| record).collect(),
    })
}

fn version(hello: &Hello<'_>) -> u16 {
    let chosen = hello.extension(SUPPORTED_VERSIONS).and_then(|extension| extension.first_chunk());
    chosen.map_or(hello.legacy_version, |bytes| u16::from_be_bytes(*bytes))
}

/// The whole records of a stream, with their fragments, until something is none.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = (TlsRecord, &[u8])> {
    std::iter::from_fn(move || {
        let ([kind, major, _, high, low], rest) = bytes.split_first_chunk::<5>()?;
        if !(20..=24).contains(kind) || *major != 3 {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (fragment, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some((TlsRecord { kind: *kind, length }, fragment))
    })
}

/// A ClientHello or a ServerHello.
struct Hello<'a> {
    legacy_version: u16,
    /// The chosen one; without meaning in a ClientHello.
    cipher_suite: u16,
    extensions: Vec<(u16, &'a [u8])>,
}

impl Hello<'_> {
    fn extension(&self, number: u16) -> Option<&[u8]> {
        self.extensions.iter().find(|(own, _)| *own == number).map(|(_, bytes)| *bytes)
    }
}

/// Reads the stream's first handshake message if it is of this type and within one record.
fn hello(stream: &[u8], kind: u8) -> Option<Hello<'_>> {
    let (record, fragment) = records(stream).next()?;
    let mut reader = Reader(fragment);
    if record.kind != HANDSHAKE || reader.number::<1>()? != usize::from(kind) {
        return None;
    }
    let length = reader.number::<3>()?;
    let mut body = Reader(reader.take(length)?);
    let legacy_version = u16::try_from(body.number::<2>()?).ok()?;
    body.take(32)?;
    body.vector::<1>()?;
    let cipher_suite = if kind == CLIENT_HELLO {
        body.vector::<2>()?;
        body.vector::<1>()?;
        0
    } else {
        let suite = u16::try_from(body.number::<2>()?).ok()?;
        body.take(1)?;
        suite
    };
    let mut rest = Reader(body.vector::<2>().unwrap_or_default());
    let extensions =
        std::iter::from_fn(|| Some((u16::try_from(rest.number::<2>()?).ok()?, rest.vector::<2>()?))).collect();
    Some(Hello { legacy_version, cipher_suite, extensions })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A big-endian number of `N` octets.
    fn number<const N: usize>(&mut self) -> Option<usize> {
        Some(self.take(N)?.iter().fold(0, |number, octet| number << 8 | usize::from(*octet)))
    }

    /// Octets after their length in `N` octets.
    fn vector<const N: usize>(&mut self) -> Option<&'a [u8]> {
        let length = self.number::<N>()?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(width: usize, content: &[u8]) -> Vec<u8> {
        let mut bytes = content.len().to_be_bytes()[8 - width..].to_vec();
        bytes.extend(content);
        bytes
    }

    fn hello_record(kind: u8, rest: &[u8], extensions: &[u8]) -> Vec<u8> {
        let body = [&[3, 3], &[9; 32][..], &vector(1, b"id"), rest, &vector(2, extensions)].concat();
        [&[HANDSHAKE, 3, 1][..], &vector(2, &[&[kind][..], &vector(3, &body)].concat())].concat()
    }

    fn stream(source: &str, destination: &str, part: Vec<u8>) -> Stream {
        Stream {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            from_start: true,
            parts: vec![part],
        }
    }

    #[test]
    fn the_negotiated_version_is_the_servers_choice() {
        let (client, server) = ("10.0.0.1:1000", "10.0.0.2:15008");
        let name = [&[0, 0][..], &vector(2, b"name")].concat();
        let client_hello = hello_record(CLIENT_HELLO, &[vector(2, &[0x13, 0x01]), vector(1, &[0])].concat(), &name);
        let server_hello = hello_record(SERVER_HELLO, &[0x13, 0x02, 0], &[0, 43, 0, 2, 3, 4]);
        let answer = [server_hello, vec![APPLICATION_DATA, 3, 3, 0, 2, 1, 2]].concat();
        let sessions = sessions(&[stream(client, server, client_hello), stream(server, client, answer)]);
        assert_eq!(sessions.len(), 1);
        assert_eq!(sessions[0].version, Some(0x0304));
        assert_eq!(sessions[0].cipher_suite, Some(0x1302));
        assert!(sessions[0].has_server_name);
        assert_eq!(sessions[0].application_records(), 1);
        assert_eq!(sessions[0].client, client.parse().unwrap());
    }

    #[test]
    fn plain_text_is_no_session() {
        assert_eq!(sessions(&[stream("10.0.0.1:1", "10.0.0.2:80", b"GET / HTTP/1.1\r\n\r\n".to_vec())]), []);
    }
}
