use http::Request;

use super::*;

fn head(request: http::request::Builder, body: Outgoing) -> String {
    let mut written = Vec::new();
    write_head(&request.body(()).expect("valid").into_parts().0, body, &mut written);
    String::from_utf8(written).expect("text")
}

#[test]
fn a_head_says_once_where_its_body_ends() {
    let post = || Request::post("/a?b=c").header("host", "x").header("content-length", "7");
    for (body, fields) in [
        (Outgoing::None, "content-length: 0\r\n"),
        (Outgoing::Length(5), "content-length: 5\r\n"),
        (Outgoing::Chunked, "transfer-encoding: chunked\r\n"),
    ] {
        let written = head(post().header("transfer-encoding", "gzip").header("content-length", "8"), body);
        assert_eq!(written, format!("POST /a?b=c HTTP/1.1\r\nhost: x\r\n{fields}\r\n"));
    }
    assert_eq!(head(Request::get("/").header("host", "x"), Outgoing::None), "GET / HTTP/1.1\r\nhost: x\r\n\r\n");
}

#[test]
fn a_target_has_the_form_of_its_method() {
    for (request, target) in [
        (Request::get("http://x/a"), "/a"),
        (Request::get("http://x?b"), "/?b"),
        (Request::options("*"), "*"),
        (Request::connect("x:80"), "x:80"),
        (Request::connect("http://x:80/"), "x:80"),
    ] {
        let written = head(request, Outgoing::None);
        assert_eq!(written.split(' ').nth(1), Some(target));
    }
}

#[test]
fn a_body_is_as_long_as_its_head_says() {
    let mut written = Vec::new();
    let mut encoder = Encoder::new(Outgoing::Length(5));
    encoder.data(b"hel", &mut written).expect("room");
    assert_eq!(encoder.data(b"lohe", &mut written), Err(LengthError));
    assert_eq!(written, b"hel");
    assert_eq!(encoder.end(None, &mut written), Err(LengthError));
    let mut encoder = Encoder::new(Outgoing::None);
    assert_eq!(encoder.data(b"a", &mut written), Err(LengthError));
    encoder.data(b"", &mut written).expect("nothing");
    encoder.end(None, &mut written).expect("an end");
    assert_eq!(written, b"hel");
}
