//! TCP streams put together again from a capture.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::packet::Packet;

/// One direction of a TCP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The sender.
    pub source: SocketAddr,
    /// The receiver.
    pub destination: SocketAddr,
    /// The connection's beginning was captured.
    pub from_start: bool,
    /// What was sent, in order, each octet once. A new part begins where octets are missing from the capture.
    pub parts: Vec<Vec<u8>>,
}

impl Stream {
    /// Whether some part contains `needle`.
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.parts.iter().any(|part| contains(part, needle))
    }

    /// The number of octets captured.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    /// Whether nothing was sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether `haystack` contains `needle`; nothing contains an empty one.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return false };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|octet| octet == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// The segments of one direction, by position in the stream.
struct Segments<'a> {
    from_start: bool,
    /// The sequence number last seen and its position: positions do not wrap.
    last: (u32, i64),
    /// The SYN's sequence number, by which a new connection of the same ports is told from a repeated SYN.
    syn: Option<u32>,
    payloads: BTreeMap<i64, &'a [u8]>,
}

impl<'a> Segments<'a> {
    fn new(sequence: u32, syn: bool) -> Self {
        Self { from_start: syn, last: (sequence, 0), syn: syn.then_some(sequence), payloads: BTreeMap::new() }
    }

    fn add(&mut self, sequence: u32, payload: &'a [u8]) {
        let position = self.last.1 + i64::from(sequence.wrapping_sub(self.last.0).cast_signed());
        self.last = (sequence, position);
        let longer = self.payloads.get(&position).is_none_or(|known| known.len() < payload.len());
        if longer && !payload.is_empty() {
            self.payloads.insert(position, payload);
        }
    }

    fn parts(&self) -> Vec<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut end = i64::MIN;
        for (position, payload) in &self.payloads {
            if *position > end || parts.is_empty() {
                parts.push(Vec::new());
                end = *position;
            }
            // What an earlier segment held already is left out.
            let known = usize::try_from(end - position).unwrap_or(usize::MAX);
            if let (Some(new), Some(part)) = (payload.get(known..), parts.last_mut()) {
                part.extend_from_slice(new);
                end += i64::try_from(new.len()).unwrap_or(0);
            }
        }
        parts
    }
}

/// All TCP streams in the packets, in order of their first packet.
pub(crate) fn streams(packets: &[Packet]) -> Vec<Stream> {
    let mut all: Vec<((SocketAddr, SocketAddr), Segments<'_>)> = Vec::new();
    let mut current: BTreeMap<(SocketAddr, SocketAddr), usize> = BTreeMap::new();
    for packet in packets {
        let Some(segment) = packet.tcp() else { continue };
        let ends = (packet.source, packet.destination);
        let known = current.get(&ends).copied();
        let reused = known.is_some_and(|at| segment.syn() && all[at].1.syn != Some(segment.sequence));
        let at = match known {
            Some(at) if !reused => at,
            _ => {
                all.push((ends, Segments::new(segment.sequence, segment.syn())));
                current.insert(ends, all.len() - 1);
                all.len() - 1
            }
        };
        // A SYN takes a sequence number of its own, before the payload.
        all[at].1.add(segment.sequence.wrapping_add(u32::from(segment.syn())), &packet.payload);
    }
    all.into_iter()
        .map(|((source, destination), segments)| Stream {
            source,
            destination,
            from_start: segments.from_start,
            parts: segments.parts(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{TcpSegment, Transport};
    use std::time::Duration;

    fn packet(sequence: u32, flags: u8, payload: &[u8]) -> Packet {
        Packet {
            time: Duration::ZERO,
            source: "10.0.0.1:1000".parse().unwrap(),
            destination: "10.0.0.2:80".parse().unwrap(),
            transport: Transport::Tcp(TcpSegment { sequence, flags }),
            payload: payload.to_vec(),
        }
    }

    fn parts(packets: &[Packet]) -> Vec<Vec<Vec<u8>>> {
        streams(packets).into_iter().map(|stream| stream.parts).collect()
    }

    #[test]
    fn disorder_repetition_and_overlap_are_undone_across_the_wrap_of_sequence_numbers() {
        let start = u32::MAX - 2;
        let at = |offset: u32| start.wrapping_add(1 + offset);
        let packets = [
            packet(start, 2, b""),
            packet(at(4), 16, b"ef"),
            packet(at(0), 16, b"abcd"),
            packet(at(0), 16, b"ab"),
            packet(at(3), 16, b"defgh"),
        ];
        assert_eq!(parts(&packets), [[b"abcdefgh".to_vec()]]);
        assert!(streams(&packets)[0].from_start);
    }

    #[test]
    fn a_gap_begins_a_new_part_and_a_new_connection_a_new_stream() {
        let packets = [packet(10, 16, b"ab"), packet(20, 16, b"cd"), packet(500, 2, b""), packet(501, 16, b"ef")];
        assert_eq!(parts(&packets), [vec![b"ab".to_vec(), b"cd".to_vec()], vec![b"ef".to_vec()]]);
    }

    #[test]
    fn a_needle_is_found_across_segments_alone_of_one_part() {
        let stream = &streams(&[packet(0, 16, b"sec"), packet(3, 16, b"ret"), packet(9, 16, b"s")])[0];
        assert!(stream.contains(b"secret"));
        assert!(!stream.contains(b"secrets"));
        assert!(!stream.contains(b""));
    }
}
