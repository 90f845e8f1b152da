//! Requests that break the rules of what a header says (RFC 9113, section 8).

use super::*;

/// A GET with more fields.
fn and(fields: &[(&str, &str)]) -> Vec<Vec<u8>> {
    vec![headers(1, &request("GET", fields))]
}

/// A request of these fields alone.
fn of(fields: &[(&str, &str)]) -> Vec<Vec<u8>> {
    vec![headers(1, &with_fields(fields))]
}

/// A POST with a length and a body.
fn body(length: &str, data: &[u8]) -> Vec<Vec<u8>> {
    let block = request("POST", &[("content-length", length)]);
    vec![frame(Kind::Headers, END_HEADERS, 1, &block), frame(Kind::Data, END_STREAM, 1, data)]
}

fn malformed() -> Taken {
    Stream(&[PROTOCOL_ERROR])
}

/// Fields and lengths.
fn malformed_fields() -> Vec<Case> {
    vec![
        ("8.2: an upper case name", and(&[("X-Upper", "1")]), malformed()),
        ("8.2.1: a blank in a name", and(&[("x y", "1")]), malformed()),
        ("8.2.1: a colon in a name", and(&[("x:y", "1")]), malformed()),
        ("8.2.1: NUL in a value", and(&[("x", "a\0b")]), malformed()),
        ("8.2.1: a line feed in a value", and(&[("x", "a\nb: c")]), malformed()),
        ("8.2.1: a carriage return in a value", and(&[("x", "a\rb")]), malformed()),
        ("8.2.2: connection", and(&[("connection", "close")]), malformed()),
        ("8.2.2: keep-alive", and(&[("keep-alive", "5")]), malformed()),
        ("8.2.2: proxy-connection", and(&[("proxy-connection", "close")]), malformed()),
        ("8.2.2: transfer-encoding", and(&[("transfer-encoding", "chunked")]), malformed()),
        ("8.2.2: upgrade", and(&[("upgrade", "websocket")]), malformed()),
        ("8.2.2: te of anything but trailers", and(&[("te", "gzip")]), malformed()),
        (
            "8.1: trailers that are not the end",
            vec![open(1), frame(Kind::Headers, END_HEADERS, 1, &with_fields(&[("t", "1")]))],
            malformed(),
        ),
        ("8.1.1: less than content-length", body("5", b"four"), malformed()),
        ("8.1.1: more than content-length", body("3", b"four"), malformed()),
        ("8.1.1: no body for a content-length", and(&[("content-length", "5")]), malformed()),
        ("8.1.1: content-length that is none", body("four", b"four"), malformed()),
        (
            "8.1.1: two lengths",
            vec![headers(1, &request("POST", &[("content-length", "0"), ("content-length", "5")]))],
            malformed(),
        ),
    ]
}

/// What stands in the place of a request line.
fn malformed_pseudo_headers() -> Vec<Case> {
    let (method, scheme, path, authority) =
        ((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"));
    vec![
        ("8.3: a pseudo-header after a field", of(&[method, scheme, ("x", "1"), path]), malformed()),
        ("8.3: a pseudo-header that nobody knows", and(&[(":x", "1")]), malformed()),
        ("8.3: a response's pseudo-header", and(&[(":status", "200")]), malformed()),
        ("8.3.1: two methods", of(&[method, method, scheme, path, authority]), malformed()),
        ("8.3.1: two paths", of(&[method, scheme, path, path, authority]), malformed()),
        ("8.3.1: two schemes", of(&[method, scheme, scheme, path, authority]), malformed()),
        ("8.3.1: two authorities", of(&[method, scheme, path, authority, authority]), malformed()),
        ("8.3.1: no method", of(&[scheme, path, authority]), malformed()),
        ("8.3.1: no scheme", of(&[method, path, authority]), malformed()),
        ("8.3.1: no path", of(&[method, scheme, authority]), malformed()),
        ("8.3.1: an empty path", of(&[method, scheme, (":path", ""), authority]), malformed()),
        ("8.3.1: a path without a slash", of(&[method, scheme, (":path", "a"), authority]), malformed()),
        ("8.3.1: an authority with a user", of(&[method, scheme, path, (":authority", "user@a")]), Status(400)),
        ("8.3.1: Host and :authority that differ", and(&[("host", "other")]), Status(400)),
        ("8.3.1: an asterisk for GET", of(&[method, scheme, (":path", "*"), authority]), Status(400)),
        ("8.5: CONNECT with a path", of(&[(":method", "CONNECT"), scheme, path, authority]), malformed()),
        ("8.5: CONNECT without authority", of(&[(":method", "CONNECT")]), Status(400)),
        ("8.5: CONNECT without a port", of(&[(":method", "CONNECT"), authority]), Status(400)),
        (
            "RFC 8441, 4: :protocol of a GET",
            of(&[method, scheme, path, authority, (":protocol", "websocket")]),
            malformed(),
        ),
    ]
}

#[test]
fn a_request_that_is_malformed_is_never_passed_on() {
    run(async |world| {
        let backends = backends().await;
        check_all(&world, &[malformed_fields(), malformed_pseudo_headers()].concat()).await;
        for backend in &backends {
            assert!(backend.seen.borrow().is_empty(), "{:?}", backend.seen.borrow());
        }
        check_all(
            &world,
            &[
                ("8.2.2: te of trailers", and(&[("te", "trailers")]), Status(200)),
                ("8.3.1: Host that says the same", and(&[("host", "cart.shop")]), Status(200)),
                // h2 takes it for none, and it goes nowhere.
                (
                    "8.1: a pseudo-header in trailers",
                    vec![open(1), headers(1, &with_fields(&[(":path", "/")]))],
                    Status(200),
                ),
                ("8.1: trailers at the end", vec![open(1), headers(1, &with_fields(&[("t", "1")]))], Status(200)),
                ("8.1.1: as long as it says", body("4", b"four"), Status(200)),
                ("8.2.3: a cookie in parts", and(&[("cookie", "a=1"), ("cookie", "b=2")]), Status(200)),
            ],
        )
        .await;
    });
}
