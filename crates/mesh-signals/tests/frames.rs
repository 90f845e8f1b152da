//! HTTP/2 of which only the frames' headers and the header blocks are shown, cut into segments at any place.

use std::time::Duration;

use Sender::{Client, Server};
use mesh_signals::{Exchange, Observer, Protocol, Sender};
use proptest::prelude::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Octets of one direction, each with whether it is shown.
#[derive(Debug, Clone, Default)]
struct Stream(Vec<(u8, bool)>);

impl Stream {
    fn put(&mut self, octets: &[u8], shown: bool) {
        self.0.extend(octets.iter().map(|octet| (*octet, shown)));
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        self.put(&[&length[1..], &[kind, flags], &stream.to_be_bytes()].concat(), true);
        self.put(payload, matches!(kind, HEADERS | CONTINUATION));
    }

    /// A header block in as many frames as it needs, of `most` octets each.
    fn block(&mut self, stream: u32, ends: bool, block: &[u8], most: usize) {
        let last = block.len().div_ceil(most) - 1;
        for (number, part) in block.chunks(most).enumerate() {
            let kind = if number == 0 { HEADERS } else { CONTINUATION };
            let ends_stream = if number == 0 && ends { END_STREAM } else { 0 };
            let ends_block = if number == last { END_HEADERS } else { 0 };
            self.frame(kind, ends_stream | ends_block, stream, part);
        }
    }

    /// A body in frames of `most` octets each; its octets look like frames' headers.
    fn body(&mut self, stream: u32, ends: bool, length: usize, most: usize) {
        let body: Vec<u8> = [0, 0, 5, HEADERS, 5].into_iter().cycle().take(length).collect();
        let last = length.div_ceil(most).saturating_sub(1);
        if length == 0 {
            return self.frame(DATA, if ends { END_STREAM } else { 0 }, stream, &[]);
        }
        for (number, part) in body.chunks(most).enumerate() {
            self.frame(DATA, if number == last && ends { END_STREAM } else { 0 }, stream, part);
        }
    }

    /// Segments: what is shown of each, and its length.
    fn segments(&self, cuts: &mut impl Iterator<Item = usize>) -> Vec<(Vec<u8>, usize)> {
        let (mut rest, mut segments) = (&self.0[..], Vec::new());
        while !rest.is_empty() {
            let (segment, after) = rest.split_at(cuts.next().expect("endless").min(rest.len()));
            let shown = segment.iter().filter(|(_, shown)| *shown).map(|(octet, _)| *octet);
            segments.push((shown.collect(), segment.len()));
            rest = after;
        }
        segments
    }
}

/// One call: octets of its request's and response's bodies and of its headers' values, and how it ends.
#[derive(Debug, Clone)]
struct Call {
    request: usize,
    response: usize,
    header: usize,
    grpc: Option<u16>,
    frame: usize,
}

fn call() -> impl Strategy<Value = Call> {
    let body = || prop_oneof![Just(0), 1..200_usize, 1_000..40_000_usize];
    let header = prop_oneof![0..100_usize, 3_000..5_000_usize];
    let frame = prop_oneof![1_000..16_384_usize, Just(16_384)];
    (body(), body(), header, prop::option::of(0..17_u16), frame)
        .prop_map(|(request, response, header, grpc, frame)| Call { request, response, header, grpc, frame })
}

/// A field that is put into the table, so that whoever misses one reads the next ones wrongly.
fn field(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| {
        let length = text.len();
        let octets = if length < 127 {
            vec![u8::try_from(length).expect("short")]
        } else {
            let rest = length - 127;
            vec![127, u8::try_from(rest & 127).expect("seven bits") | 128, u8::try_from(rest >> 7).expect("short")]
        };
        [octets, text.as_bytes().to_vec()].concat()
    };
    [vec![0x40], string(name), string(value)].concat()
}

/// Both directions of a connection with these calls, one after another; each call is one of the pairs.
fn connection(calls: &[Call]) -> Vec<(Stream, Stream)> {
    let mut streams = Vec::new();
    for (call, number) in calls.iter().zip(0..) {
        let (mut client, mut server) = (Stream::default(), Stream::default());
        if number == 0 {
            client.put(PREFACE, true);
            client.frame(SETTINGS, 0, 0, &[0; 6]);
            server.frame(SETTINGS, 0, 0, &[0; 12]);
        }
        let id = number * 2 + 1;
        let token = field("x-token", &"t".repeat(call.header));
        let kind = if call.grpc.is_some() { "application/grpc" } else { "text/plain" };
        let request = [vec![0x83, 0x86, 0x84], field("content-type", kind), token.clone()].concat();
        client.block(id, call.request == 0, &request, call.frame);
        if call.request > 0 {
            client.body(id, true, call.request, call.frame);
        }
        server.frame(WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]);
        server.block(id, false, &[vec![0x88], field("content-type", kind), token].concat(), call.frame);
        server.body(id, call.grpc.is_none(), call.response, call.frame);
        if let Some(status) = call.grpc {
            server.block(id, true, &field("grpc-status", &status.to_string()), call.frame);
        }
        streams.push((client, server));
    }
    streams
}

/// What is told of the calls where segments are cut so, and what is done to a segment by its number.
fn told(
    calls: &[Call],
    cuts: &[usize],
    mut harm: impl FnMut(usize, &mut Observer, &mut (Vec<u8>, usize)) -> bool,
) -> (Vec<Exchange>, bool) {
    let (mut observer, mut told, mut number) = (Observer::default(), Vec::new(), 0);
    let mut cuts = cuts.iter().copied().cycle();
    for (client, server) in connection(calls) {
        for (sender, stream) in [(Client, client), (Server, server)] {
            for mut segment in stream.segments(&mut cuts) {
                let is_shown = harm(number, &mut observer, &mut segment);
                number += 1;
                if is_shown {
                    let at = Duration::from_millis(1);
                    observer.show_frames(sender, (&segment.0, segment.1), at, &mut |exchange| told.push(exchange));
                }
            }
        }
    }
    let looks = observer.looks();
    observer.end(Duration::from_millis(2), &mut |exchange| told.push(exchange));
    (told, looks)
}

/// A call's protocol, its two statuses, and the octets of its bodies.
type Outcome = (Protocol, Option<u16>, Option<u16>, u64, u64);

fn expected(calls: &[Call]) -> Vec<Outcome> {
    let protocol = |call: &Call| if call.grpc.is_some() { Protocol::Grpc } else { Protocol::Http };
    let of = |call: &Call| (protocol(call), Some(200), call.grpc, call.request as u64, call.response as u64);
    calls.iter().map(of).collect()
}

fn outcomes(told: &[Exchange]) -> Vec<Outcome> {
    let of = |told: &Exchange| (told.protocol, told.status, told.grpc_status, told.request_bytes, told.response_bytes);
    told.iter().map(of).collect()
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    let cut = prop_oneof![1..12_usize, 500..1_500_usize, 60_000..65_536_usize];
    // One of them long, so that there are not too many.
    prop::collection::vec(cut, 0..30).prop_map(|cuts| [cuts, vec![60_000]].concat()).prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// However a connection is cut into segments, every call is told of, and exactly.
    #[test]
    fn every_call_is_told_of_exactly(calls in prop::collection::vec(call(), 1..6), cuts in cuts()) {
        let (told, looks) = told(&calls, &cuts, |_, _, _| true);
        prop_assert!(looks);
        prop_assert_eq!(outcomes(&told), expected(&calls));
    }

    /// Where a segment is not shown, nothing is told from then on, and nothing that is not so.
    #[test]
    fn what_is_missed_ends_the_telling(
        calls in prop::collection::vec(call(), 1..6),
        cuts in cuts(),
        place in any::<prop::sample::Index>(),
    ) {
        let mut count = 0;
        told(&calls, &cuts, |_, _, _| { count += 1; true });
        let missed = place.index(count);
        let (told, looks) = told(&calls, &cuts, |number, observer, _| {
            if number == missed {
                observer.miss();
            }
            number != missed
        });
        prop_assert!(!looks);
        prop_assert!(expected(&calls).starts_with(&outcomes(&told)), "{told:?}");
    }

    /// Where less of a segment is shown than should be, or more, what is told before is all.
    #[test]
    fn what_is_shown_in_part_tells_nothing_wrong(
        calls in prop::collection::vec(call(), 1..6),
        cuts in cuts(),
        place in any::<prop::sample::Index>(),
        by in 1..20_usize,
        shorter in any::<bool>(),
    ) {
        let mut shown = Vec::new();
        told(&calls, &cuts, |number, _, segment| { if !segment.0.is_empty() { shown.push(number); } true });
        let harmed = shown[place.index(shown.len())];
        let (told, looks) = told(&calls, &cuts, |number, _, segment| {
            if number == harmed {
                let length = if shorter { segment.0.len().saturating_sub(by) } else { segment.0.len() + by };
                segment.0.resize(length, b'a');
            }
            true
        });
        prop_assert!(!looks);
        prop_assert!(expected(&calls).starts_with(&outcomes(&told)), "{told:?}");
    }
}

#[test]
fn a_server_of_http2_may_speak_first() {
    let mut server = Stream::default();
    server.frame(SETTINGS, 0, 0, &[0; 6]);
    let (shown, length) = server.segments(&mut std::iter::repeat(1000)).remove(0);
    let octets: Vec<u8> = server.0.iter().map(|(octet, _)| *octet).collect();
    let mut rest = Stream::default();
    rest.frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x8d]);
    let answer: Vec<u8> = rest.0.iter().map(|(octet, _)| *octet).collect();
    let ask = [PREFACE, &[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0], &[0, 0, 1, HEADERS, 5, 0, 0, 0, 1, 0x82]].concat();
    for whole in [true, false] {
        let (mut observer, mut told) = (Observer::default(), Vec::new());
        let (at, mut done) = (Duration::ZERO, |exchange| told.push(exchange));
        if whole {
            observer.show(Server, &octets, at, &mut done);
        } else {
            observer.show_frames(Server, (&shown, length), at, &mut done);
        }
        observer.show(Client, &ask, at, &mut done);
        observer.show(Server, &answer, at, &mut done);
        assert_eq!(told.iter().map(|told| told.status).collect::<Vec<_>>(), [Some(404)], "{whole}");
    }
}

#[test]
fn what_a_client_says_must_begin_as_http2_does() {
    let mut observer = Observer::default();
    let settings = [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];
    observer.show(Server, &settings, Duration::ZERO, &mut |_| {});
    assert!(observer.looks());
    observer.show(Client, b"GET / HTTP/1.1\r\n\r\n", Duration::ZERO, &mut |_| {});
    assert!(!observer.looks());
    let mut observer = Observer::default();
    observer.show_frames(Client, (&settings, settings.len()), Duration::ZERO, &mut |_| {});
    assert!(!observer.looks());
}
