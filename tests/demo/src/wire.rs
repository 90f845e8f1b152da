//! What somebody who listens on the wire between the nodes gets to see.

use std::net::SocketAddr;

use mesh_lab::{Packets, Stream, TlsSession};

use crate::checkout::Purchase;

/// Octets in a line of a dump.
const LINE: usize = 16;
/// The tunnels' port.
pub const HBONE: u16 = 15008;

/// Something to look for on the wire.
#[derive(Clone, Debug)]
pub struct Secret {
    /// What it is.
    pub name: &'static str,
    /// Its octets, as the programs send them.
    pub text: String,
}

/// What a purchase says in plaintext when nothing hides it.
pub fn secrets(purchase: &Purchase) -> Vec<Secret> {
    let secret = |name, text: &str| Secret { name, text: text.to_owned() };
    vec![
        secret("the card's number", &purchase.card),
        secret("the purchase's marker", &purchase.marker),
        secret("the shopper's request", "GET /checkout?user=ada&item=book"),
        secret("the frontend's order", "POST /orders HTTP/1.1"),
        secret("an answer", "HTTP/1.1 200 OK"),
    ]
}

/// How often the TCP streams of the capture hold the text.
pub fn occurrences(packets: &Packets, text: &str) -> usize {
    let in_part = |part: &Vec<u8>| part.windows(text.len()).filter(|window| *window == text.as_bytes()).count();
    let in_streams: usize = packets.streams().iter().flat_map(|stream| &stream.parts).map(in_part).sum();
    // In a datagram, or in something that is no whole stream, it counts as well.
    if in_streams == 0 { usize::from(packets.contains_plaintext(text)) } else { in_streams }
}

/// Octets that were read off the wire.
#[derive(Clone, Debug)]
pub struct Excerpt {
    /// Who sent them.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// Them, as a dump: position in the packet's payload, octets, characters.
    pub dump: Vec<String>,
}

/// The first packet that holds the text, and the lines of its payload where the text is.
pub fn excerpt(packets: &Packets, text: &str) -> Option<Excerpt> {
    packets.packets().iter().find_map(|packet| {
        let at = packet.payload.windows(text.len()).position(|window| window == text.as_bytes())?;
        let dump = dump(&packet.payload, at, text.len());
        Some(Excerpt { source: packet.source, destination: packet.destination, dump })
    })
}

/// The lines of a dump that hold `length` octets from `at` on.
fn dump(payload: &[u8], at: usize, length: usize) -> Vec<String> {
    let first = at - at % LINE;
    let lines = payload.chunks(LINE).enumerate().skip(first / LINE);
    lines
        .map(|(number, chunk)| (number * LINE, chunk))
        .take_while(|(position, _)| *position < at + length)
        .map(|(position, chunk)| {
            let octets: Vec<_> = chunk.iter().map(|octet| format!("{octet:02x}")).collect();
            let printable = |octet: &u8| if (0x20..0x7f).contains(octet) { char::from(*octet) } else { '.' };
            let characters: String = chunk.iter().map(printable).collect();
            format!("{position:04x}  {:<47}  {characters}", octets.join(" "))
        })
        .collect()
}

/// The TCP octets of a capture, by whether TLS hides them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Octets {
    /// In TLS records of sessions whose beginning was seen.
    pub tls: u64,
    /// Anywhere else.
    pub other: u64,
}

/// Sorts the TCP octets of a capture.
pub fn octets(packets: &Packets, sessions: &[TlsSession]) -> Octets {
    let mut octets = Octets::default();
    for stream in packets.streams() {
        let (all, tls) = (stream.len() as u64, in_records(stream, sessions));
        octets.tls += tls.min(all);
        octets.other += all.saturating_sub(tls);
    }
    octets
}

/// How many octets of a stream are in whole TLS records, their headers of five octets among them.
fn in_records(stream: &Stream, sessions: &[TlsSession]) -> u64 {
    let ends = (stream.source, stream.destination);
    let records = sessions.iter().find_map(|session| match ends {
        _ if ends == (session.client, session.server) => Some(&session.from_client),
        _ if ends == (session.server, session.client) => Some(&session.from_server),
        _ => None,
    });
    records.into_iter().flatten().map(|record| record.length as u64 + 5).sum()
}

/// A version's name.
pub fn version_name(version: Option<u16>) -> String {
    match version {
        Some(0x0304) => "TLS 1.3".into(),
        Some(0x0303) => "TLS 1.2".into(),
        Some(other) => format!("{other:#06x}"),
        None => "none".into(),
    }
}

/// A cipher suite's name (RFC 8446, section B.4).
pub fn cipher_name(suite: Option<u16>) -> String {
    match suite {
        Some(0x1301) => "AES-128-GCM".into(),
        Some(0x1302) => "AES-256-GCM".into(),
        Some(0x1303) => "ChaCha20-Poly1305".into(),
        Some(other) => format!("{other:#06x}"),
        None => "none".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_shows_the_lines_that_hold_the_text() {
        let payload = b"0123456789abcdefcard=4000\x00\xffghijklmnopqrstuvw";
        let lines = dump(payload, 16, 9);
        assert_eq!(lines, ["0010  63 61 72 64 3d 34 30 30 30 00 ff 67 68 69 6a 6b  card=4000..ghijk"]);
        assert_eq!(dump(payload, 14, 4).len(), 2);
        assert!(dump(payload, 40, 2)[0].starts_with("0020  "));
    }
}
