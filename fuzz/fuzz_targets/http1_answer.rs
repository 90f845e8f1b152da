//! What an endpoint answers by HTTP/1.1: its head and its body are the same wherever what it sends is cut apart.

#![no_main]

use bytes::BytesMut;
use http::{HeaderMap, Method, StatusCode};
use libfuzzer_sys::fuzz_target;
use mesh_http1::{Answers, BodyError, Decoded, Decoder, Framing, HeadError};

const METHODS: [Method; 4] = [Method::GET, Method::HEAD, Method::CONNECT, Method::POST];

/// How far an answer was read.
#[derive(Debug, PartialEq)]
enum Read {
    /// Its head is not all there.
    Begun,
    NoHead(HeadError),
    Body { status: StatusCode, fields: HeaderMap, framing: Framing, is_kept: bool, data: Vec<u8>, end: End },
}

#[derive(Debug, PartialEq)]
enum End {
    Whole { trailers: Option<HeaderMap>, rest: Vec<u8> },
    Broken(BodyError),
}

fn read<'a>(method: &Method, parts: impl Iterator<Item = &'a [u8]>) -> Read {
    let (mut answers, mut octets) = (Answers::to(method.clone()), BytesMut::new());
    let mut head = None;
    let (mut data, mut trailers) = (Vec::new(), None);
    for part in parts {
        octets.extend_from_slice(part);
        if head.is_none() {
            match answers.next(&mut octets) {
                Ok(None) => continue,
                Ok(Some(answer)) => head = Some((Decoder::new(answer.framing), answer)),
                Err(error) => return Read::NoHead(error),
            }
        }
        let Some((decoder, answer)) = &mut head else { continue };
        loop {
            match decoder.next(&mut octets) {
                Ok(Decoded::Data(part)) => data.extend_from_slice(&part),
                Ok(Decoded::Trailers(fields)) => trailers = Some(fields),
                Ok(Decoded::More | Decoded::End) => break,
                Err(error) => return done(answer, data, End::Broken(error)),
            }
        }
    }
    let Some((mut decoder, answer)) = head else { return Read::Begun };
    let end = match decoder.cut() {
        Ok(()) => End::Whole { trailers, rest: octets.to_vec() },
        Err(error) => End::Broken(error),
    };
    done(&answer, data, end)
}

fn done(answer: &mesh_http1::Answer, data: Vec<u8>, end: End) -> Read {
    if let Framing::Length(length) = answer.framing {
        assert!(data.len() as u64 <= length);
    }
    Read::Body {
        status: answer.parts.status,
        fields: answer.parts.headers.clone(),
        framing: answer.framing,
        is_kept: answer.is_kept,
        data,
        end,
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(([method, cuts @ ..], octets)) = data.split_first_chunk::<5>() else { return };
    let method = &METHODS[usize::from(*method) % METHODS.len()];
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut).min(octets.len())).collect();
    cuts.extend([0, octets.len()]);
    cuts.sort_unstable();
    let apart = read(method, cuts.windows(2).map(|ends| &octets[ends[0]..ends[1]]));
    assert_eq!(apart, read(method, std::iter::once(octets)));
    assert_eq!(apart, read(method, octets.chunks(1)));
});
