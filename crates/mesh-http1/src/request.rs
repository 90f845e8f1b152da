//! The octets of a request.

use http::{
    HeaderMap, Method,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
    request::Parts,
};

/// How a request's body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outgoing {
    /// There is none.
    None,
    /// So many octets.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// A body has other octets than its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's body is not as long as its head says")]
pub struct LengthError;

/// Writes a head. The fields that say where the body ends are written by what is sent, whatever the head has of them.
pub fn write_head(parts: &Parts, body: Outgoing, into: &mut Vec<u8>) {
    into.extend_from_slice(parts.method.as_str().as_bytes());
    into.push(b' ');
    match (parts.uri.path_and_query(), parts.uri.authority()) {
        (None, Some(authority)) => into.extend_from_slice(authority.as_str().as_bytes()),
        (Some(_), Some(authority)) if parts.method == Method::CONNECT => {
            into.extend_from_slice(authority.as_str().as_bytes());
        }
        (Some(target), _) => {
            into.extend_from_slice(target.path().as_bytes());
            if let Some(query) = target.query() {
                into.push(b'?');
                into.extend_from_slice(query.as_bytes());
            }
        }
        (None, None) => into.push(b'/'),
    }
    into.extend_from_slice(b" HTTP/1.1\r\n");
    let mut says_length = false;
    for (name, value) in &parts.headers {
        if *name == CONTENT_LENGTH {
            says_length = true;
        } else if *name != TRANSFER_ENCODING {
            field(name.as_str(), value.as_bytes(), into);
        }
    }
    match body {
        Outgoing::Chunked => field("transfer-encoding", b"chunked", into),
        Outgoing::Length(length) => write_length(length, into),
        Outgoing::None if says_length => write_length(0, into),
        Outgoing::None => {}
    }
    into.extend_from_slice(b"\r\n");
}

fn write_length(length: u64, into: &mut Vec<u8>) {
    field("content-length", length.to_string().as_bytes(), into);
}

fn field(name: &str, value: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(name.as_bytes());
    into.extend_from_slice(b": ");
    into.extend_from_slice(value);
    into.extend_from_slice(b"\r\n");
}

/// Writes a body.
#[derive(Debug)]
pub struct Encoder(Outgoing);

impl Encoder {
    /// One that is sent so.
    #[must_use]
    pub const fn new(body: Outgoing) -> Self {
        Self(body)
    }

    /// Writes some of it.
    ///
    /// # Errors
    /// There is more of it than its head says; nothing has been written.
    pub fn data(&mut self, data: &[u8], into: &mut Vec<u8>) -> Result<(), LengthError> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.0 {
            Outgoing::None => Err(LengthError),
            Outgoing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(LengthError)?;
                into.extend_from_slice(data);
                Ok(())
            }
            Outgoing::Chunked => {
                into.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                into.extend_from_slice(data);
                into.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }

    /// Writes its end. Where there are no chunks there is no place for trailers.
    ///
    /// # Errors
    /// Some of it is missing.
    pub fn end(&mut self, trailers: Option<&HeaderMap>, into: &mut Vec<u8>) -> Result<(), LengthError> {
        match std::mem::replace(&mut self.0, Outgoing::None) {
            Outgoing::None | Outgoing::Length(0) => Ok(()),
            Outgoing::Length(_) => Err(LengthError),
            Outgoing::Chunked => {
                into.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    field(name.as_str(), value.as_bytes(), into);
                }
                into.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
