//! Where a body ends: said once, in a way that there is one reading of (RFC 9112, section 6).

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
    request, response,
};

use super::reply::Refusal;
use crate::telemetry::BadInput;

/// Octets of the fields of a head, of requests and of responses. Envoy's default is 60 KiB.
const MAX_HEAD: usize = 64 << 10;

/// # Errors
/// The request's body is coded otherwise than in chunks, or has more than one length.
pub(super) fn check_request(parts: &request::Parts) -> Result<(), Refusal> {
    if coding(&parts.headers) == Coding::Other {
        return Err(Refusal::of_bad_input(501, "only chunked is a transfer coding here", BadInput::Framing));
    }
    if !fits(&parts.headers) {
        return Err(Refusal::of_bad_input(431, "the header fields are too large", BadInput::HeadTooLarge));
    }
    // HTTP/1's parser has looked at them already; HTTP/2's looks at the first alone.
    if parts.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Refusal::of_bad_input(400, "more than one Content-Length", BadInput::Framing));
    }
    Ok(())
}

/// Looks at what an endpoint says that was asked for these protocols in place of HTTP/1.1.
///
/// # Errors
/// The response's body ends in two places, or at none that can be told; or it is the start of what nobody asked for.
pub(super) fn check_response(parts: &mut response::Parts, protocols: Option<&str>) -> Result<(), BadInput> {
    if !fits(&parts.headers) {
        return Err(BadInput::HeadTooLarge);
    }
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        // RFC 9110, section 7.8: to what was asked for, and to nothing else. There is no body then.
        let asked = protocols.unwrap_or_default().split(',').map(str::trim);
        let chosen = parts.headers.get(UPGRADE).and_then(|chosen| chosen.to_str().ok()).unwrap_or_default();
        let is_asked = !chosen.is_empty() && asked.into_iter().any(|one| one.eq_ignore_ascii_case(chosen.trim()));
        return if is_asked { Ok(()) } else { Err(BadInput::Upgrade) };
    }
    let coding = coding(&parts.headers);
    let has_length = parts.headers.contains_key(CONTENT_LENGTH);
    if coding == Coding::Other || (coding == Coding::Chunked && has_length) {
        return Err(BadInput::Framing);
    }
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next().cloned();
    let mut is_repeated = false;
    for length in lengths {
        is_repeated = true;
        if Some(length) != first.as_ref() {
            return Err(BadInput::Framing);
        }
    }
    if let Some(first) = first.filter(|_| is_repeated) {
        parts.headers.insert(CONTENT_LENGTH, first);
    }
    Ok(())
}

/// Whether the fields have no more octets than are taken. HTTP/1's parser bounds what it reads at once, which may be less than what
/// it has by the head's end; HTTP/2's bounds what fields take in memory.
fn fits(headers: &HeaderMap) -> bool {
    // A field's colon, blank and end of line.
    const REST: usize = 4;
    let octets: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + REST).sum();
    octets <= MAX_HEAD
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    None,
    Chunked,
    Other,
}

fn coding(headers: &HeaderMap) -> Coding {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Coding::None,
        (Some(only), None) if only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
        _ => Coding::Other,
    }
}
