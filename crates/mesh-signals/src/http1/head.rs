//! Heads of messages (RFC 9112): no more of them than says where the message ends and what it is.

use memchr::{memchr, memmem};

use crate::Lost;

/// What a request's head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestHead {
    pub(super) method: Method,
    pub(super) fields: Fields,
}

/// What a response's head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    pub(super) fields: Fields,
}

/// Methods that a response is read differently for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Head,
    Connect,
    Other,
}

/// The fields that say where a message ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
}

/// Where the head at the start of `bytes` ends; `from` is how much of them was looked at before.
pub(super) fn end(bytes: &[u8], from: usize) -> Option<usize> {
    // The end may have begun in what was there before.
    let from = from.saturating_sub(3);
    memmem::find(&bytes[from..], b"\r\n\r\n").map(|found| from + found + 4)
}

/// Reads a request's head, which ends with the bytes.
pub(super) fn request(head: &[u8]) -> Result<RequestHead, Lost> {
    let (line, rest) = first_line(head)?;
    let (method, target) = line.split_at(memchr(b' ', line).ok_or(Lost)?);
    if !(target.ends_with(b" HTTP/1.1") || target.ends_with(b" HTTP/1.0")) {
        return Err(Lost);
    }
    let method = match method {
        b"HEAD" => Method::Head,
        b"CONNECT" => Method::Connect,
        _ => Method::Other,
    };
    Ok(RequestHead { method, fields: fields(rest)? })
}

/// Reads a response's head, which ends with the bytes.
pub(super) fn response(head: &[u8]) -> Result<ResponseHead, Lost> {
    let (line, rest) = first_line(head)?;
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', code @ ..] = line else { return Err(Lost) };
    let [hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = code.get(..3).ok_or(Lost)? else {
        return Err(Lost);
    };
    let digit = |digit: &u8| u16::from(digit - b'0');
    Ok(ResponseHead { status: digit(hundreds) * 100 + digit(tens) * 10 + digit(ones), fields: fields(rest)? })
}

fn first_line(head: &[u8]) -> Result<(&[u8], &[u8]), Lost> {
    let end = memchr(b'\n', head).ok_or(Lost)?;
    Ok((head[..end].trim_ascii_end(), &head[end + 1..]))
}

fn fields(mut rest: &[u8]) -> Result<Fields, Lost> {
    let mut fields = Fields::default();
    while let Some(end) = memchr(b'\n', rest) {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        // Two names are looked for, and few begin like them.
        if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T')) {
            continue;
        }
        let Some(colon) = memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok()).ok_or(Lost)?;
            if fields.length.replace(length).is_some_and(|before| before != length) {
                return Err(Lost);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            fields.chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_where_messages_end() {
        let head = request(b"POST /a HTTP/1.1\r\nhost: a\r\nContent-Length: 12\r\n\r\n").expect("a head");
        assert_eq!((head.method, head.fields.length, head.fields.chunked), (Method::Other, Some(12), false));
        let head = response(b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: gzip, chunked\r\n\r\n").expect("a head");
        assert_eq!((head.status, head.fields.chunked), (204, true));
        assert_eq!(response(b"HTTP/1.0 200\r\n\r\n").map(|head| head.status), Ok(200));
    }

    #[test]
    fn what_is_no_head_is_not_followed() {
        for wrong in ["GET /\r\n\r\n", "GET / HTTP/2\r\n\r\n", "GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n"] {
            assert_eq!(request(wrong.as_bytes()), Err(Lost), "{wrong:?}");
        }
        for wrong in ["HTTP/1.1 20\r\n\r\n", "ICY 200 OK\r\n\r\n", "HTTP/1.1 abc\r\n\r\n"] {
            assert_eq!(response(wrong.as_bytes()), Err(Lost), "{wrong:?}");
        }
    }

    #[test]
    fn an_end_is_found_across_pieces() {
        let head = b"GET / HTTP/1.1\r\n\r\nrest";
        for from in 0..18 {
            assert_eq!(end(head, from), Some(18), "looked at before: {from}");
        }
        assert_eq!(end(&head[..17], 0), None);
    }
}
