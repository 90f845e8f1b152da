//! The body of an answer, out of what comes.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use crate::{Framing, chunked::Chunked};

/// Why a body is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection ended before it.
    #[error("the connection ended before the body's end")]
    Cut,
    /// A chunk's size is none.
    #[error("a chunk's size is malformed")]
    Size,
    /// More than is taken of what stands beside the sizes of chunks.
    #[error("the chunks' extensions are too large")]
    Extensions,
    /// A chunk does not end where it should.
    #[error("a chunk is longer than its size")]
    Chunk,
    /// The trailers cannot be read, or are more than are taken.
    #[error("the trailers are malformed or too large")]
    Trailers,
}

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Nothing yet: more octets have to come.
    More,
    /// Some of it.
    Data(Bytes),
    /// What stands at its end.
    Trailers(HeaderMap),
    /// No more.
    End,
}

/// Takes a body off what comes.
#[derive(Debug)]
pub struct Decoder(State);

#[derive(Debug)]
enum State {
    Left(u64),
    Chunked(Box<Chunked>),
    Close,
    Ended,
}

impl Decoder {
    /// For a body that ends so.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::None | Framing::Length(0) => State::Ended,
            Framing::Length(length) => State::Left(length),
            Framing::Chunked => State::Chunked(Box::default()),
            Framing::Close => State::Close,
        })
    }

    /// Whether all of it has been taken.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        matches!(self.0, State::Ended)
    }

    /// How many octets are still to come, where that was said.
    #[must_use]
    pub const fn left(&self) -> Option<u64> {
        match &self.0 {
            State::Left(left) => Some(*left),
            State::Ended => Some(0),
            State::Chunked(_) | State::Close => None,
        }
    }

    /// Takes what comes next off what has come. What follows the body stays.
    ///
    /// # Errors
    /// It is no body.
    pub fn next(&mut self, octets: &mut BytesMut) -> Result<Decoded, BodyError> {
        match &mut self.0 {
            State::Ended => Ok(Decoded::End),
            _ if octets.is_empty() => Ok(Decoded::More),
            State::Left(left) => {
                let data = up_to(octets, *left);
                *left -= data.len() as u64;
                if *left == 0 {
                    self.0 = State::Ended;
                }
                Ok(Decoded::Data(data))
            }
            State::Close => Ok(Decoded::Data(std::mem::take(octets).freeze())),
            State::Chunked(chunked) => {
                let decoded = chunked.next(octets)?;
                if matches!(decoded, Decoded::End | Decoded::Trailers(_)) {
                    self.0 = State::Ended;
                }
                Ok(decoded)
            }
        }
    }

    /// No more octets come.
    ///
    /// # Errors
    /// Some of it is missing.
    pub fn cut(&mut self) -> Result<(), BodyError> {
        match self.0 {
            State::Close | State::Ended => {
                self.0 = State::Ended;
                Ok(())
            }
            State::Left(_) | State::Chunked(_) => Err(BodyError::Cut),
        }
    }
}

/// The first of them, and no more than so many.
pub(crate) fn up_to(octets: &mut BytesMut, most: u64) -> Bytes {
    match usize::try_from(most) {
        Ok(most) if most < octets.len() => octets.split_to(most).freeze(),
        _ => std::mem::take(octets).freeze(),
    }
}

#[cfg(test)]
mod tests;
