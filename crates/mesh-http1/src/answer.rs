//! The head of an answer.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::CONNECTION,
    response::{self, Response},
};

use crate::{Framing, MAX_FIELDS};

/// Octets of a head.
pub const MAX_HEAD: usize = 64 << 10;
/// Heads before the one that answers, which say nothing yet (1xx).
pub const MAX_INTERIM: u32 = 1024;
/// What every head begins with.
const BEGINNING: &[u8] = b"HTTP/1.";

/// Why octets are no head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It cannot be read.
    #[error("the head of the answer is malformed")]
    Malformed,
    /// It has more than [`MAX_HEAD`] octets, or more than a hundred fields.
    #[error("the head of the answer is too large")]
    TooLarge,
    /// Where the body ends has no meaning, or two.
    #[error("the answer does not say, or says in two ways, where its body ends")]
    Framing,
    /// More than [`MAX_INTERIM`] heads of 1xx came before it.
    #[error("too many interim answers came, and no final one")]
    Interim,
}

/// An answer's head.
#[derive(Debug)]
pub struct Answer {
    /// The status and the fields.
    pub parts: response::Parts,
    /// Where its body ends.
    pub framing: Framing,
    /// Whether another request may follow on the connection.
    pub is_kept: bool,
    /// Whether the connection is another protocol's from here on.
    pub is_other: bool,
}

/// Finds the answer to one request in what comes.
#[derive(Debug)]
pub struct Answers {
    method: Method,
    /// Octets that have been searched for the head's end.
    searched: usize,
    interim: u32,
}

impl Answers {
    /// For a request by that method.
    #[must_use]
    pub const fn to(method: Method) -> Self {
        Self { method, searched: 0, interim: 0 }
    }

    /// Takes the head off what has come; none where there has to come more. What follows it stays.
    ///
    /// # Errors
    /// What came is no answer.
    pub fn next(&mut self, octets: &mut BytesMut) -> Result<Option<Answer>, HeadError> {
        loop {
            let Some(end) = self.end(octets)? else { return Ok(None) };
            let (status, version, fields) = parse(&octets.split_to(end).freeze())?;
            self.searched = 0;
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                self.interim += 1;
                if self.interim > MAX_INTERIM {
                    return Err(HeadError::Interim);
                }
                continue;
            }
            let framing = Framing::of(&self.method, status, version, &fields)?;
            let is_connected = self.method == Method::CONNECT && status.is_success();
            let is_other = is_connected || status == StatusCode::SWITCHING_PROTOCOLS;
            let is_kept = !is_other && framing != Framing::Close && is_kept(version, &fields);
            let mut parts = Response::new(()).into_parts().0;
            (parts.status, parts.version, parts.headers) = (status, version, fields);
            return Ok(Some(Answer { parts, framing, is_kept, is_other }));
        }
    }

    /// Where the head ends: after the first empty line.
    fn end(&mut self, octets: &[u8]) -> Result<Option<usize>, HeadError> {
        let begun = octets.len().min(BEGINNING.len());
        if octets[..begun] != BEGINNING[..begun] {
            return Err(HeadError::Malformed);
        }
        // The last octets before may be the beginning of what is looked for.
        let from = self.searched.saturating_sub(2);
        let end = memchr::memchr_iter(b'\n', &octets[from..]).map(|at| from + at + 1).find_map(|next| {
            match &octets[next..] {
                [b'\n', ..] => Some(next + 1),
                [b'\r', b'\n', ..] => Some(next + 2),
                _ => None,
            }
        });
        self.searched = octets.len();
        if end.unwrap_or(octets.len()) > MAX_HEAD {
            return Err(HeadError::TooLarge);
        }
        Ok(end)
    }
}

fn parse(head: &Bytes) -> Result<(StatusCode, Version, HeaderMap), HeadError> {
    let mut places = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut answer = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut answer, head, &mut places);
    match parsed {
        // An empty line elsewhere would be another end.
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Ok(_) | Err(_) => return Err(HeadError::Malformed),
    }
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(HeadError::Malformed)?;
    let version = if answer.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    Ok((status, version, fields(head, answer.headers)?))
}

/// The fields, whose values are parts of what they were read from.
pub(crate) fn fields(read: &Bytes, parsed: &[httparse::Header<'_>]) -> Result<HeaderMap, HeadError> {
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| HeadError::Malformed)?;
        let value = HeaderValue::from_maybe_shared(read.slice_ref(field.value)).map_err(|_| HeadError::Malformed)?;
        fields.append(name, value);
    }
    Ok(fields)
}

/// RFC 9112, section 9.3.
fn is_kept(version: Version, fields: &HeaderMap) -> bool {
    let mut options = fields
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|octet| *octet == b','))
        .map(<[u8]>::trim_ascii)
        .peekable();
    if options.peek().is_none() {
        return version == Version::HTTP_11;
    }
    let mut keeps = version == Version::HTTP_11;
    for option in options {
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
        keeps |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    keeps
}

#[cfg(test)]
mod tests;
