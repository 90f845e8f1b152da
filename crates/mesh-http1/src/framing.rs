//! Where an answer's body ends (RFC 9112, section 6.3).

use http::{
    HeaderMap, Method, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

use crate::HeadError;

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// It has so many octets.
    Length(u64),
    /// It comes in chunks.
    Chunked,
    /// It ends with the connection.
    Close,
}

impl Framing {
    /// That of the answer to a request by that method.
    ///
    /// # Errors
    /// It is said in more than one way, or in one that nobody can follow.
    pub(crate) fn of(
        method: &Method,
        status: StatusCode,
        version: Version,
        fields: &HeaderMap,
    ) -> Result<Self, HeadError> {
        let is_empty = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || *method == Method::HEAD
            || (*method == Method::CONNECT && status.is_success());
        if is_empty {
            return Ok(Self::None);
        }
        let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
        if let Some(coding) = codings.next() {
            let is_chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
            // HTTP/1.0 knows none (section 6.1).
            let is_one = codings.next().is_none() && version == Version::HTTP_11;
            return if is_chunked && is_one && !fields.contains_key(CONTENT_LENGTH) {
                Ok(Self::Chunked)
            } else {
                Err(HeadError::Framing)
            };
        }
        Ok(length(fields)?.map_or(Self::Close, Self::Length))
    }
}

/// Content-Length, which may be said twice and not otherwise (RFC 9110, section 8.6).
fn length(fields: &HeaderMap) -> Result<Option<u64>, HeadError> {
    let mut found = None;
    for value in fields.get_all(CONTENT_LENGTH) {
        let length = decimal(value.as_bytes()).ok_or(HeadError::Framing)?;
        if found.replace(length).is_some_and(|before| before != length) {
            return Err(HeadError::Framing);
        }
    }
    Ok(found)
}

/// Digits alone: no sign, no blank.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, octet| {
        let digit = octet.is_ascii_digit().then(|| u64::from(octet - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}
