use super::*;

fn next(octets: &str, method: Method) -> (Result<Option<Answer>, HeadError>, BytesMut) {
    let mut read = BytesMut::from(octets);
    (Answers::to(method).next(&mut read), read)
}

fn answer(octets: &str, method: Method) -> Answer {
    let (answer, _) = next(octets, method);
    answer
        .unwrap_or_else(|error| panic!("{octets:?}: {error}"))
        .unwrap_or_else(|| panic!("{octets:?} is no whole head"))
}

#[test]
fn a_body_ends_where_the_head_says() {
    let cases = [
        ("200 OK\r\ncontent-length: 5", Method::GET, Framing::Length(5), true),
        ("200 OK\r\ncontent-length: 5\r\ncontent-length: 5", Method::GET, Framing::Length(5), true),
        ("200 OK\r\ncontent-length: 0", Method::GET, Framing::Length(0), true),
        ("200 OK\r\ntransfer-encoding: Chunked", Method::GET, Framing::Chunked, true),
        ("200 OK", Method::GET, Framing::Close, false),
        ("200 OK\r\ncontent-length: 5\r\nconnection: close", Method::GET, Framing::Length(5), false),
        ("200 OK\r\ncontent-length: 5\r\nconnection: x, CLOSE, keep-alive", Method::GET, Framing::Length(5), false),
        ("200 OK\r\ncontent-length: 5", Method::HEAD, Framing::None, true),
        ("204 No Content\r\ncontent-length: 5", Method::GET, Framing::None, true),
        ("304 Not Modified\r\ntransfer-encoding: chunked", Method::GET, Framing::None, true),
        ("407 No\r\ncontent-length: 5", Method::CONNECT, Framing::Length(5), true),
    ];
    for (head, method, framing, is_kept) in cases {
        let answer = answer(&format!("HTTP/1.1 {head}\r\n\r\n"), method);
        assert_eq!((answer.framing, answer.is_kept, answer.is_other), (framing, is_kept, false), "{head:?}");
    }
}

#[test]
fn http_1_0_keeps_a_connection_where_it_says_so() {
    let head = |fields: &str| answer(&format!("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n{fields}\r\n"), Method::GET);
    assert!(!head("").is_kept);
    assert!(head("connection: Keep-Alive\r\n").is_kept);
    assert!(!head("connection: close, keep-alive\r\n").is_kept);
}

#[test]
fn a_connection_becomes_anothers_by_101_and_by_connect() {
    for (head, method) in
        [("101 Switching Protocols\r\nupgrade: echo", Method::GET), ("200 OK\r\ncontent-length: 5", Method::CONNECT)]
    {
        let answer = answer(&format!("HTTP/1.1 {head}\r\n\r\n"), method);
        assert_eq!((answer.framing, answer.is_kept, answer.is_other), (Framing::None, false, true), "{head:?}");
    }
}

#[test]
fn what_has_no_reading_is_no_answer() {
    let ok = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
    let many: String = (0..101).map(|index| format!("x-{index}: 1\r\n")).collect();
    let cases = [
        ("garbage\r\n\r\n".to_owned(), HeadError::Malformed),
        ("SSH-2".to_owned(), HeadError::Malformed),
        ("\r\n\r\n".to_owned(), HeadError::Malformed),
        ("HTTP/2.0 200 OK\r\n\r\n".to_owned(), HeadError::Malformed),
        ("HTTP/1.1 20 OK\r\n\r\n".to_owned(), HeadError::Malformed),
        ("HTTP/1.1 099 OK\r\n\r\n".to_owned(), HeadError::Malformed),
        ("HTTP/1.1 2000 OK\r\n\r\n".to_owned(), HeadError::Malformed),
        (ok("x: 1\r\n folded"), HeadError::Malformed),
        (ok("x : 1"), HeadError::Malformed),
        (ok("x: 1\0"), HeadError::Malformed),
        (ok("x: a\rb"), HeadError::Malformed),
        (ok(": 1"), HeadError::Malformed),
        (ok("content-length: 5\r\ncontent-length: 6"), HeadError::Framing),
        (ok("content-length: 5, 5"), HeadError::Framing),
        (ok("content-length: five"), HeadError::Framing),
        (ok("content-length: +5"), HeadError::Framing),
        (ok("content-length: -5"), HeadError::Framing),
        (ok("content-length:"), HeadError::Framing),
        (ok("content-length: 18446744073709551616"), HeadError::Framing),
        (ok("transfer-encoding: chunked\r\ncontent-length: 5"), HeadError::Framing),
        (ok("transfer-encoding: gzip, chunked"), HeadError::Framing),
        (ok("transfer-encoding: chunked\r\ntransfer-encoding: chunked"), HeadError::Framing),
        (ok("transfer-encoding:"), HeadError::Framing),
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(), HeadError::Framing),
        (ok(&many), HeadError::TooLarge),
        (ok(&format!("x: {}", "a".repeat(MAX_HEAD))), HeadError::TooLarge),
        (format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(MAX_HEAD)), HeadError::TooLarge),
    ];
    for (head, expected) in cases {
        let (answer, _) = next(&head, Method::GET);
        assert_eq!(answer.expect_err("no answer"), expected, "{:?}", &head[..head.len().min(80)]);
    }
}

#[test]
fn heads_that_say_nothing_yet_are_passed_over_and_bounded() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    let (found, rest) = next(&format!("{early}HTTP/1.1 100 Continue\r\n\r\n{last}"), Method::GET);
    assert_eq!(found.expect("an answer").expect("whole").parts.status, StatusCode::OK);
    assert_eq!(&rest[..], b"hello");
    let (found, _) = next(&early.repeat(MAX_INTERIM as usize + 1), Method::GET);
    assert_eq!(found.expect_err("no answer"), HeadError::Interim);
}

#[test]
fn a_head_is_the_same_however_it_comes() {
    let whole = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nx: 1\r\nX: 2\r\ncontent-length: 5\r\n\r\nhello";
    for ends in ["\r\n", "\n"] {
        let whole = whole.replace("\r\n", ends);
        let head = whole.len() - 5;
        let (mut answers, mut read) = (Answers::to(Method::GET), BytesMut::new());
        for (index, octet) in whole.bytes().enumerate() {
            read.extend_from_slice(&[octet]);
            match answers.next(&mut read).expect("no error") {
                None => assert!(index + 1 < head, "not at the head's end"),
                Some(answer) => {
                    assert_eq!((index + 1, answer.framing), (head, Framing::Length(5)));
                    assert!(answer.parts.headers.get_all("x").iter().eq(["1", "2"]));
                    break;
                }
            }
        }
    }
}
