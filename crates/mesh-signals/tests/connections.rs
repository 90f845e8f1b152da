//! Connections, shown whole, in pieces and broken.

use std::time::Duration;

use Sender::{Client, Server};
use mesh_signals::{Exchange, Observer, Protocol, Sender};
use proptest::prelude::*;

/// What is told of a connection whose bytes pass in these pieces, a millisecond apart; and whether it is looked at to its end.
fn told(pieces: &[(Sender, &[u8])], ends: bool) -> (Vec<Exchange>, bool) {
    let (mut observer, mut told) = (Observer::default(), Vec::new());
    let mut at = Duration::ZERO;
    for (sender, bytes) in pieces {
        observer.show(*sender, bytes, at, &mut |exchange| told.push(exchange));
        at += Duration::from_millis(1);
    }
    let looks = observer.looks();
    if ends {
        observer.end(at, &mut |exchange| told.push(exchange));
    }
    (told, looks)
}

fn statuses(told: &[Exchange]) -> Vec<Option<u16>> {
    told.iter().map(|exchange| exchange.status).collect()
}

#[test]
fn requests_one_after_another_are_told_of_with_their_bytes_and_time() {
    let (told, looks) = told(
        &[
            (Client, b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhel"),
            (Client, b"lo"),
            (Server, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 3\r\n\r\nyes"),
            (Client, b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n"),
            (Server, b"HTTP/1.1 503 Service Unavailable\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n"),
        ],
        true,
    );
    assert!(looks);
    assert_eq!(statuses(&told), [Some(201), Some(503)]);
    assert_eq!((told[0].request_bytes, told[0].response_bytes), (5, 3));
    assert_eq!((told[1].request_bytes, told[1].response_bytes), (0, 4));
    assert_eq!(told[0].duration, Duration::from_millis(2));
    assert_eq!(told[1].duration, Duration::from_millis(1));
    assert_eq!(told[0].protocol, Protocol::Http);
}

#[test]
fn responses_end_where_their_requests_say() {
    let (told, looks) = told(
        &[
            (Client, b"HEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n"),
            (Server, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"),
            (Server, b"HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n"),
            (Server, b"HTTP/1.0 200 OK\r\n\r\nuntil the end"),
        ],
        true,
    );
    assert!(looks);
    assert_eq!(statuses(&told), [Some(200), Some(304), Some(200)]);
    assert_eq!(told[2].response_bytes, 13);
}

#[test]
fn a_request_without_a_response_is_told_of_at_the_end() {
    let (told, _) = told(&[(Client, b"GET / HTTP/1.1\r\n\r\n"), (Server, b"HTTP/1.1 2")], true);
    assert_eq!(statuses(&told), [None]);
}

#[test]
fn a_connection_that_becomes_another_protocol_is_one_exchange() {
    let (told, looks) = told(
        &[
            (Client, b"GET /chat HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"),
            (Server, b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x05hello"),
            (Client, b"\x81\x85\x00\x00\x00\x00hello"),
        ],
        true,
    );
    assert!(looks);
    assert_eq!(statuses(&told), [Some(101)]);
    assert_eq!(told[0].response_bytes, 7);
}

#[test]
fn what_is_no_http_is_not_looked_at() {
    let cases: [&[(Sender, &[u8])]; 5] = [
        &[(Client, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")],
        &[(Server, b"220 mail.example.com ESMTP\r\n")],
        &[(Client, b"SELECT 1;\n\r\n\r\n")],
        &[(Client, b"GET / HTTP/1.1\r\n\r\n"), (Server, b"+OK\r\n\r\n")],
        &[(Client, b"GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n")],
    ];
    for pieces in cases {
        assert!(!told(pieces, false).1, "{pieces:?}");
    }
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A unary call of gRPC, which fails with 14, and a GET that is answered 404; interleaved.
fn two_streams() -> [(Sender, Vec<u8>); 3] {
    let content_type = [&[0x5f, 16][..], b"application/grpc"].concat();
    let request = [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        // Padded, with a priority.
        frame(
            1,
            END_HEADERS | 0x8 | 0x20,
            1,
            &[&[2, 0, 0, 0, 0, 9, 0x83, 0x86, 0x84][..], &content_type, &[0, 0]].concat(),
        ),
        frame(1, END_HEADERS | END_STREAM, 3, &[0x82, 0x86, 0x84]),
        frame(0, END_STREAM, 1, &[0; 25]),
    ];
    let grpc_status = [&[0x40, 11][..], b"grpc-status", &[2], b"14"].concat();
    let answer = [
        frame(SETTINGS, 0, 0, &[]),
        // A block in two frames; the content type is in the table of this direction now.
        frame(1, 0, 1, &[0x88]),
        frame(9, END_HEADERS, 1, &content_type),
        frame(1, END_HEADERS | END_STREAM, 3, &[0x8d]),
        frame(0, 0, 1, &[0; 7]),
    ];
    let trailers = frame(1, END_HEADERS | END_STREAM, 1, &grpc_status);
    [(Client, request.concat()), (Server, answer.concat()), (Server, trailers)]
}

#[test]
fn streams_are_told_of_each_by_itself() {
    let pieces = two_streams();
    let pieces: Vec<(Sender, &[u8])> = pieces.iter().map(|(sender, bytes)| (*sender, &bytes[..])).collect();
    let (told, looks) = told(&pieces, true);
    assert!(looks);
    assert_eq!(statuses(&told), [Some(404), Some(200)]);
    assert_eq!((told[1].protocol, told[1].grpc_status), (Protocol::Grpc, Some(14)));
    assert_eq!((told[1].request_bytes, told[1].response_bytes), (25, 7));
    assert_eq!(told[1].duration, Duration::from_millis(2));
    assert_eq!(told[0].protocol, Protocol::Http);
}

#[test]
fn a_stream_that_is_given_up_is_told_of_without_a_status() {
    let request = [PREFACE.to_vec(), frame(1, END_HEADERS | END_STREAM, 1, &[0x82]), frame(3, 0, 1, &[0, 0, 0, 8])];
    assert_eq!(statuses(&told(&[(Client, &request.concat())], true).0), [None]);
}

proptest! {
    /// However the bytes are cut, the same is told.
    #[test]
    fn pieces_make_no_difference(cuts in prop::collection::vec(1_usize..40, 1..200)) {
        let plain: [(Sender, Vec<u8>); 2] = [
            (Client, b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\nGET /2 HTTP/1.1\r\n\r\n".to_vec()),
            (Server, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbodyHTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n".to_vec()),
        ];
        for (connection, expected) in [(plain.to_vec(), vec![Some(200), Some(500)]), (two_streams().to_vec(), vec![Some(404), Some(200)])] {
            let mut cuts = cuts.iter().cycle();
            let mut pieces = Vec::new();
            for (sender, mut bytes) in connection.iter().map(|(sender, bytes)| (*sender, &bytes[..])) {
                while !bytes.is_empty() {
                    let (piece, rest) = bytes.split_at(bytes.len().min(*cuts.next().expect("endless")));
                    pieces.push((sender, piece));
                    bytes = rest;
                }
            }
            let (told, looks) = told(&pieces, true);
            prop_assert!(looks);
            prop_assert_eq!(statuses(&told), expected);
            prop_assert_eq!(told.iter().map(|exchange| exchange.response_bytes).sum::<u64>(), if told[0].status == Some(200) { 5 } else { 7 });
        }
    }

    /// Whatever passes, nothing breaks, and no more is told of than was begun.
    #[test]
    fn nothing_that_passes_does_harm(
        start in prop::sample::select(vec![&b""[..], b"GET / HTTP/1.1\r\n\r\n", PREFACE]),
        pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..64)), 0..20),
    ) {
        let pieces: Vec<(Sender, &[u8])> = std::iter::once((Client, start))
            .chain(pieces.iter().map(|(client, bytes)| (if *client { Client } else { Server }, &bytes[..])))
            .collect();
        let bytes: usize = pieces.iter().map(|(_, bytes)| bytes.len()).sum();
        prop_assert!(told(&pieces, true).0.len() <= bytes);
        prop_assert!(told_in_part(&pieces, 20).0.len() <= bytes);
    }
}

/// What is told of a connection of which each piece shows no more than `shown` bytes, and of the rest its last eight; a piece of the
/// server that is empty stands for bytes that nothing is known of.
fn told_in_part(pieces: &[(Sender, &[u8])], shown: usize) -> (Vec<Exchange>, bool) {
    let (mut observer, mut told) = (Observer::default(), Vec::new());
    let mut at = Duration::ZERO;
    for (sender, bytes) in pieces {
        at += Duration::from_millis(1);
        if bytes.is_empty() {
            observer.miss();
            continue;
        }
        let (seen, unseen) = bytes.split_at(shown.min(bytes.len()));
        observer.show(*sender, seen, at, &mut |exchange| told.push(exchange));
        if !unseen.is_empty() {
            let tail = &bytes[bytes.len().saturating_sub(8)..];
            observer.pass_over(*sender, (unseen.len() as u64, tail), at, &mut |exchange| told.push(exchange));
        }
    }
    (told, observer.looks())
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn bodies_that_are_not_shown_are_passed_over() {
    let body = [b'x'; 300];
    let post = [b"POST / HTTP/1.1\r\ncontent-length: 300\r\n\r\n", &body[..]].concat();
    let long = [b"HTTP/1.1 201 Created\r\ncontent-length: 300\r\n\r\n", &body[..]].concat();
    let chunked =
        [b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n12c\r\n", &body[..], b"\r\n0\r\n\r\n"].concat();
    let (told, looks) = told_in_part(
        &[(Client, &post), (Server, &long), (Client, GET), (Server, &chunked), (Client, GET), (Server, OK)],
        80,
    );
    assert!(looks);
    assert_eq!(statuses(&told), [Some(201), Some(202), Some(200)]);
    assert_eq!((told[0].request_bytes, told[0].response_bytes, told[2].response_bytes), (300, 300, 2));
    assert!(told.iter().all(|exchange| exchange.duration == Duration::from_millis(1)), "{told:?}");
}

#[test]
fn chunks_whose_end_is_in_a_later_piece_are_found_there() {
    let begins =
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n", &[b'x'; 100][..], b"\r\n64\r\n"].concat();
    let ends = [&[b'x'; 100][..], b"\r\n0\r\n\r\n"].concat();
    for shown in [80, 200] {
        let (told, looks) =
            told_in_part(&[(Client, GET), (Server, &begins), (Server, &ends), (Client, GET), (Server, OK)], shown);
        assert!(looks);
        assert_eq!(statuses(&told), [Some(200), Some(200)], "{shown} shown");
    }
}

#[test]
fn what_was_missed_costs_its_own_exchange_and_no_later_one() {
    let head: &[u8] = &[b"HTTP/1.1 200 OK\r\nx-long: ", &[b'x'; 100][..], b"\r\ncontent-length: 0\r\n\r\n"].concat();
    let trailers =
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n", &[b'x'; 100][..], b"\r\n0\r\na: b\r\n\r\n"]
            .concat();
    for missed in [
        &[(Client, GET), (Server, &b""[..])][..],
        &[(Client, GET), (Server, head)],
        &[(Client, GET), (Server, &trailers)],
    ] {
        let pieces = [&[(Client, GET), (Server, OK)], missed, &[(Client, GET), (Server, OK)]].concat();
        let (told, looks) = told_in_part(&pieces, 80);
        assert!(looks);
        assert_eq!(statuses(&told), [Some(200), Some(200)], "{missed:?}");
    }
}

#[test]
fn http2_is_not_followed_over_bytes_that_are_not_shown() {
    let request =
        [PREFACE, &frame(1, END_HEADERS, 1, &[0x83, 0x86, 0x84]), &frame(0, END_STREAM, 1, &[0; 300])].concat();
    assert!(!told_in_part(&[(Client, &request)], 100).1);
    assert!(told_in_part(&[(Client, &request)], 1000).1);
}
