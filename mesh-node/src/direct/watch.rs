//! The requests of one direct connection, by what the kernel shows of its segments.

use mesh_signals::{Exchange, Observer, Sender};

use crate::{
    bpf::{self, DirectId, DirectSignal, Shown},
    telemetry::RequestCounts,
};

/// Looks at one connection.
#[derive(Default)]
pub(super) struct Watch {
    observer: Observer,
    pub(super) counts: RequestCounts,
    /// The sequence numbers that come next of the client and of the server, once they are known.
    next: [Option<u32>; 2],
}

impl Watch {
    /// Begins to look at a connection from its first segment on.
    pub(super) fn begin(id: DirectId) -> Self {
        Self { next: [Some(id.isn.wrapping_add(1)), None], ..Self::default() }
    }

    /// Takes in one segment: the exchanges that are complete with it. What was sent before is left out, and what was not shown
    /// before is missed.
    pub(super) fn show(&mut self, signal: &DirectSignal<'_>) -> Vec<Exchange> {
        let mut exchanges = Vec::new();
        if !self.observer.looks() {
            return exchanges;
        }
        match signal.shown {
            Shown::Ends { first, last } => self.show_ends(signal, (first, last), &mut exchanges),
            Shown::Frames(shown) => self.show_frames(signal, shown, &mut exchanges),
            Shown::NoMore => self.observer.miss(),
        }
        exchanges
    }

    fn show_ends(&mut self, signal: &DirectSignal<'_>, (first, last): (&[u8], &[u8]), exchanges: &mut Vec<Exchange>) {
        let mut done = |exchange| exchanges.push(exchange);
        let side = usize::from(signal.sender == Sender::Server);
        let next = &mut self.next[side];
        let end = signal.sequence.wrapping_add(signal.length);
        let known = next.map_or(0, |next| next.wrapping_sub(signal.sequence).cast_signed());
        let fresh = match usize::try_from(known) {
            // Sent again, and nothing with it.
            Ok(known) if known > 0 && next.is_some_and(|next| end.wrapping_sub(next).cast_signed() <= 0) => return,
            Ok(known) => first.get(known..),
            Err(_) => None,
        };
        *next = Some(end);
        let shown = fresh.unwrap_or_else(|| {
            self.observer.miss();
            // The other side is followed again from where it is.
            self.next[1 - side] = None;
            if known < 0 { first } else { &[] }
        });
        self.observer.show(signal.sender, shown, signal.at, &mut done);
        let unseen = u64::from(signal.length).saturating_sub(first.len() as u64);
        if unseen > 0 {
            self.observer.pass_over(signal.sender, (unseen, last), signal.at, &mut done);
        }
    }

    /// The kernel leaves out what was sent before.
    fn show_frames(&mut self, signal: &DirectSignal<'_>, shown: &[u8], exchanges: &mut Vec<Exchange>) {
        let next = &mut self.next[usize::from(signal.sender == Sender::Server)];
        if next.is_some_and(|next| next != signal.sequence) {
            return self.observer.miss();
        }
        *next = Some(signal.sequence.wrapping_add(signal.length));
        let all = (shown, signal.length as usize);
        self.observer.show_frames(signal.sender, all, signal.at, &mut |exchange| exchanges.push(exchange));
    }

    /// The connection has ended: the exchanges that end with it.
    pub(super) fn end(&mut self) -> Vec<Exchange> {
        let mut exchanges = Vec::new();
        self.observer.end(bpf::now(), &mut |exchange| exchanges.push(exchange));
        exchanges
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_abi::{
        FramePosition,
        frame::{Fresh, HeaderRoom, Walked},
        signal::KEPT,
    };

    use super::*;

    const ISN: u32 = u32::MAX - 10;
    const ID: DirectId = DirectId { cookie: 1, isn: ISN };
    const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

    /// How many requests are told of where these segments are shown; each is told by where it begins in its direction.
    fn told(segments: &[(Sender, usize, &[u8])]) -> usize {
        let (mut watch, mut count) = (Watch::begin(ID), 0);
        for (sender, offset, shown) in segments {
            let sequence = ISN.wrapping_add(1).wrapping_add(u32::try_from(*offset).expect("short"));
            let length = u32::try_from(shown.len()).expect("short");
            let at = Duration::from_millis(1);
            let shown = Shown::Ends { first: shown, last: &[] };
            let signal = DirectSignal { id: ID, at, sender: *sender, sequence, length, shown };
            count += watch.show(&signal).len();
        }
        count
    }

    #[test]
    fn what_is_sent_again_is_seen_once() {
        use Sender::{Client, Server};
        let (ask, answer) = ((Client, 0, GET), (Server, 0, OK));
        assert_eq!(told(&[ask, answer]), 1);
        assert_eq!(told(&[ask, ask, answer, answer]), 1);
        // In pieces, of which one is sent again with the next.
        let (first, all) = ((Client, 0, &GET[..7]), (Client, 0, GET));
        assert_eq!(told(&[first, all, answer]), 1);
    }

    #[test]
    fn what_is_missed_costs_no_later_request() {
        use Sender::{Client, Server};
        let (ask, answer) = ((Client, 0, GET), (Server, 0, OK));
        let second = [(Client, GET.len(), GET), (Server, OK.len(), OK)];
        let third = [(Client, 2 * GET.len(), GET), (Server, 2 * OK.len(), OK)];
        assert_eq!(told(&[&[ask, answer][..], &third].concat()), 2);
        let fourth = [(Client, 3 * GET.len(), GET), (Server, 3 * OK.len(), OK)];
        assert_eq!(told(&[&[ask, answer][..], &second[..1], &third, &fourth].concat()), 2);
        assert_eq!(told(&[&[ask, answer][..], &second, &third].concat()), 3);
    }

    /// What is left of a segment, and what the kernel's programs show of it.
    struct Payload<'a> {
        left: &'a [u8],
        shown: Vec<u8>,
    }

    impl Walked for Payload<'_> {
        fn left(&self) -> u32 {
            u32::try_from(self.left.len()).expect("short")
        }

        fn pass(&mut self, octets: u32) {
            self.left = &self.left[octets as usize..];
        }

        fn show(&mut self, octets: u32) -> Option<()> {
            self.shown.extend(&self.left[..octets as usize]);
            (self.shown.len() <= KEPT).then_some(())
        }

        fn read(&mut self, octets: u32, (room, place): (&mut HeaderRoom, u32)) -> Option<()> {
            let (place, octets) = (place as usize, octets as usize);
            room[place..place + octets].copy_from_slice(&self.left[..octets]);
            Some(())
        }
    }

    /// One end's HTTP/2, as the kernel's programs show it.
    struct End {
        sender: Sender,
        begin: u32,
        position: FramePosition,
    }

    impl End {
        fn new(sender: Sender) -> Self {
            let begin = ISN.wrapping_add(1);
            Self { sender, begin, position: FramePosition::before(begin, sender == Sender::Client) }
        }

        /// A segment leaves: so many octets of what is sent, from there on. What is told of, and whether it is followed.
        fn send(&mut self, watch: &mut Watch, sent: &[u8], from: usize, length: usize) -> (Vec<Exchange>, bool) {
            let payload = &sent[from..sent.len().min(from + length)];
            let sequence = self.begin.wrapping_add(u32::try_from(from).expect("short"));
            let fresh = self.position.fresh(sequence, u32::try_from(payload.len()).expect("short"));
            let Fresh::Octets(length) = fresh else { return (Vec::new(), fresh == Fresh::Nothing) };
            let fresh = &payload[payload.len() - length as usize..];
            let mut walked = Payload { left: fresh, shown: Vec::new() };
            let is_followed = self.position.walk(&mut walked).is_some();
            let shown = if is_followed { Shown::Frames(&walked.shown) } else { Shown::NoMore };
            let (sequence, at) = (self.position.next, Duration::from_millis(1));
            self.position.next = sequence.wrapping_add(length);
            let signal = DirectSignal { id: ID, at, sender: self.sender, sequence, length, shown };
            (watch.show(&signal), is_followed)
        }
    }

    /// Twenty calls: all that the client sends, and all that the server does. The bodies look like frames.
    fn calls() -> [Vec<u8>; 2] {
        const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
            let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
            [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
        };
        let body = SETTINGS.repeat(1500);
        let mut sent = [[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &SETTINGS[..]].concat(), SETTINGS.to_vec()];
        for stream in (1..40).step_by(2) {
            sent[0].extend(frame(1, 4, stream, &[0x83, 0x86, 0x84]));
            sent[0].extend(frame(0, 1, stream, &body[usize::from(stream)..]));
            sent[1].extend(frame(1, 4, stream, &[0x88]));
            sent[1].extend([frame(0, 0, stream, &body), frame(0, 1, stream, &[])].concat());
        }
        sent
    }

    /// How many calls are told of where segments have this length, and some are sent again, with or without what comes next.
    fn told_of_calls(length: usize) -> usize {
        let (mut watch, mut told) = (Watch::begin(ID), 0);
        let mut ends = [End::new(Sender::Client), End::new(Sender::Server)];
        for (end, sent) in ends.iter_mut().zip(calls()) {
            for from in (0..sent.len()).step_by(length) {
                let before = from.saturating_sub(length / 2);
                for (from, length) in [(from, length), (before, length), (from, length / 2)] {
                    let (exchanges, is_followed) = end.send(&mut watch, &sent, from, length);
                    assert!(is_followed, "{length} octets from {from} on");
                    assert!(exchanges.iter().all(|exchange| exchange.status == Some(200)), "{exchanges:?}");
                    told += exchanges.len();
                }
            }
        }
        told
    }

    #[test]
    fn frames_are_followed_wherever_segments_end_and_whatever_is_sent_again() {
        for length in [1, 2, 7, 8, 9, 10, 100, 1460, 13_000, 65_000] {
            assert_eq!(told_of_calls(length), 20, "in segments of {length}");
        }
    }

    #[test]
    fn what_the_kernel_does_not_follow_is_not_told_of() {
        let [client, server] = calls();
        let mut watch = Watch::begin(ID);
        let (mut asks, mut answers) = (End::new(Sender::Client), End::new(Sender::Server));
        let (_, is_followed) = asks.send(&mut watch, &client, 0, 60_000);
        assert!(is_followed);
        let (exchanges, is_followed) = answers.send(&mut watch, &server, 0, 30_000);
        assert!(is_followed && !exchanges.is_empty());
        // More frames than one segment may have.
        let many = [&server[..30_000], &[0, 0, 0, 4, 0, 0, 0, 0, 0].repeat(200)].concat();
        let mut ended = End::new(Sender::Server);
        ended.position = FramePosition { rest: 0, ..answers.position };
        let (exchanges, is_followed) = ended.send(&mut watch, &many, 30_000, 60_000);
        assert!(!is_followed && exchanges.is_empty());
        assert!(watch.end().is_empty(), "what was under way is not told of as unanswered");
    }
}
