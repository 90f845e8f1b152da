//! The requests of one direct connection, by what the kernel shows of its segments.

use mesh_signals::{Exchange, Observer, Sender};

use crate::{
    bpf::{self, DirectId, DirectSignal},
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
        let mut done = |exchange| exchanges.push(exchange);
        let side = usize::from(signal.sender == Sender::Server);
        let next = &mut self.next[side];
        let end = signal.sequence.wrapping_add(signal.length);
        let known = next.map_or(0, |next| next.wrapping_sub(signal.sequence).cast_signed());
        let fresh = match usize::try_from(known) {
            // Sent again, and nothing with it.
            Ok(known) if known > 0 && next.is_some_and(|next| end.wrapping_sub(next).cast_signed() <= 0) => {
                return exchanges;
            }
            Ok(known) => signal.shown.get(known..),
            Err(_) => None,
        };
        *next = Some(end);
        let shown = fresh.unwrap_or_else(|| {
            self.observer.miss();
            // The other side is followed again from where it is.
            self.next[1 - side] = None;
            if known < 0 { signal.shown } else { &[] }
        });
        self.observer.show(signal.sender, shown, signal.at, &mut done);
        let unseen = u64::from(signal.length).saturating_sub(signal.shown.len() as u64);
        if unseen > 0 {
            self.observer.pass_over(signal.sender, (unseen, signal.tail), signal.at, &mut done);
        }
        exchanges
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
            let signal = DirectSignal { id: ID, at, sender: *sender, sequence, length, shown, tail: &[] };
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
}
