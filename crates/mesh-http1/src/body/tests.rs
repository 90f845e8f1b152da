use http::HeaderValue;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{Encoder, MAX_EXTENSIONS, MAX_TRAILERS, Outgoing};

/// A body as a whole: its octets, its trailers, and what is left behind it.
type Whole = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

/// What a body comes to that comes in these parts, and whose connection ends then.
fn read<'a>(framing: Framing, parts: impl IntoIterator<Item = &'a [u8]>) -> Result<Whole, BodyError> {
    let (mut decoder, mut octets) = (Decoder::new(framing), BytesMut::new());
    let (mut data, mut trailers) = (Vec::new(), None);
    for part in parts {
        octets.extend_from_slice(part);
        loop {
            match decoder.next(&mut octets)? {
                Decoded::Data(part) => {
                    assert!(!part.is_empty());
                    data.extend_from_slice(&part);
                }
                Decoded::Trailers(fields) => trailers = Some(fields),
                Decoded::More | Decoded::End => break,
            }
        }
    }
    if !decoder.is_ended() {
        decoder.cut()?;
    }
    Ok((data, trailers, octets.to_vec()))
}

fn whole(framing: Framing, octets: &str) -> Result<Whole, BodyError> {
    read(framing, [octets.as_bytes()])
}

#[test]
fn a_body_is_what_its_head_says() {
    let done = |data: &str, rest: &str| Ok((data.as_bytes().to_vec(), None, rest.as_bytes().to_vec()));
    assert_eq!(whole(Framing::None, "hello"), done("", "hello"));
    assert_eq!(whole(Framing::Length(0), "hello"), done("", "hello"));
    assert_eq!(whole(Framing::Length(5), "hellohello"), done("hello", "hello"));
    assert_eq!(whole(Framing::Length(6), "hello"), Err(BodyError::Cut));
    assert_eq!(whole(Framing::Close, "hello"), done("hello", ""));
}

#[test]
fn chunks_have_one_reading() {
    let long = "a".repeat(MAX_EXTENSIONS as usize + 1);
    let cases = [
        ("5\r\nhello\r\n0\r\n\r\n", Ok("hello")),
        ("2\r\nhe\r\n3;a=\"b\"\r\nllo\r\n0;c\r\n\r\n", Ok("hello")),
        ("5 \t\r\nhello\r\n00\r\n\r\n", Ok("hello")),
        ("A\r\nhellohello\r\n0\r\n\r\n", Ok("hellohello")),
        ("0\r\n\r\n", Ok("")),
        ("5\r\nhello\r\n0\r\n", Err(BodyError::Cut)),
        ("5\r\nhello\r\n", Err(BodyError::Cut)),
        ("5\r\nhell", Err(BodyError::Cut)),
        ("\r\nhello\r\n0\r\n\r\n", Err(BodyError::Size)),
        (";a\r\nhello\r\n0\r\n\r\n", Err(BodyError::Size)),
        (" 5\r\nhello\r\n0\r\n\r\n", Err(BodyError::Size)),
        ("+5\r\nhello\r\n0\r\n\r\n", Err(BodyError::Size)),
        ("-5\r\nhello\r\n0\r\n\r\n", Err(BodyError::Size)),
        ("0x5\r\nhello\r\n0\r\n\r\n", Err(BodyError::Size)),
        ("5 5\r\nhello\r\n0\r\n\r\n", Err(BodyError::Size)),
        ("5\nhello\r\n0\r\n\r\n", Err(BodyError::Size)),
        ("5\rhello\r\n0\r\n\r\n", Err(BodyError::Size)),
        ("5;a\nhello\r\n0\r\n\r\n", Err(BodyError::Size)),
        ("5;a\r\r\nhello\r\n0\r\n\r\n", Err(BodyError::Size)),
        ("ffffffffffffffffff\r\nhello", Err(BodyError::Size)),
        ("00000000000000005\r\nhello", Err(BodyError::Size)),
        ("4\r\nhello\r\n0\r\n\r\n", Err(BodyError::Chunk)),
        ("5\r\nhello\n0\r\n\r\n", Err(BodyError::Chunk)),
        ("5\r\nhello\r0\r\n\r\n", Err(BodyError::Chunk)),
        (&format!("5;{long}\r\nhello\r\n0\r\n\r\n"), Err(BodyError::Extensions)),
        (&"1;aaaaaaaa\r\na\r\n".repeat(2_000), Err(BodyError::Extensions)),
    ];
    for (octets, expected) in cases {
        let found = whole(Framing::Chunked, octets).map(|(data, ..)| data);
        assert_eq!(found, expected.map(|data| data.as_bytes().to_vec()), "{:?}", &octets[..octets.len().min(80)]);
    }
    assert_eq!(whole(Framing::Chunked, "0\r\n\r\nrest").expect("a body").2, b"rest");
}

#[test]
fn trailers_are_fields_and_bounded() {
    let with = |trailers: &str| whole(Framing::Chunked, &format!("1\r\na\r\n0\r\n{trailers}\r\n"));
    let (data, trailers, _) = with("x: 1\r\ny: 2\r\nx: 3\r\n").expect("a body");
    let trailers = trailers.expect("some");
    assert_eq!((&data[..], trailers.len()), (&b"a"[..], 3));
    assert!(trailers.get_all("x").iter().eq(["1", "3"]));
    let many: String = (0..101).map(|index| format!("x-{index}: 1\r\n")).collect();
    let long = format!("x: {}\r\n", "a".repeat(MAX_TRAILERS));
    for trailers in ["x : 1\r\n", "x: 1\n", "x: 1\r", "x\r\n", " x: 1\r\n", "x: 1\r\n y\r\n", "x: \0\r\n", &many, &long]
    {
        assert_eq!(with(trailers), Err(BodyError::Trailers), "{:?}", &trailers[..trailers.len().min(80)]);
    }
}

proptest! {
    #[test]
    fn a_body_is_the_same_however_it_comes(
        octets in prop_oneof![
            "([0-4]\r\n[a-z]{0,4}(\r\n|\r|\n)?){0,5}(0\r\n(x: y\r\n){0,2}\r\n)?[a-z]{0,3}".prop_map(String::into_bytes),
            vec(any::<u8>(), 0..64),
        ],
        cuts in vec(0..64_usize, 0..8),
        length in 0..80_u64,
    ) {
        for framing in [Framing::Chunked, Framing::Length(length), Framing::Close, Framing::None] {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut.min(&octets.len())).chain([0, octets.len()]).collect();
            cuts.sort_unstable();
            let parts = cuts.windows(2).map(|ends| &octets[ends[0]..ends[1]]);
            prop_assert_eq!(read(framing, parts), read(framing, [&octets[..]]));
        }
    }

    #[test]
    fn what_is_written_is_read(parts in vec(vec(any::<u8>(), 0..40), 0..6), has_trailers: bool) {
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x"), HeaderValue::from_static("1"))]);
        let trailers = has_trailers.then_some(trailers);
        let (mut encoder, mut written) = (Encoder::new(Outgoing::Chunked), Vec::new());
        for part in &parts {
            encoder.data(part, &mut written).expect("room");
        }
        encoder.end(trailers.as_ref(), &mut written).expect("an end");
        prop_assert_eq!(read(Framing::Chunked, [&written[..]]), Ok((parts.concat(), trailers, Vec::new())));
    }
}
