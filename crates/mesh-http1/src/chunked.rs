//! Chunks (RFC 9112, section 7.1).

use bytes::{Buf as _, BytesMut};

use crate::{BodyError, Decoded, MAX_FIELDS, answer, body::up_to};

/// Octets that may stand beside the sizes of a body's chunks, all together.
pub const MAX_EXTENSIONS: u32 = 16 << 10;
/// Octets of trailers.
pub const MAX_TRAILERS: usize = 16 << 10;
/// Digits of a chunk's size.
const MAX_DIGITS: u32 = 16;

/// Takes chunks off what comes.
#[derive(Debug, Default)]
pub(crate) struct Chunked {
    state: State,
    /// The chunk's size as far as it was read, then what is left of the chunk.
    size: u64,
    digits: u32,
    extensions: u32,
    trailers: BytesMut,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    /// Blanks after a size.
    Blank,
    Extension,
    /// The end of a size's line.
    LineEnd,
    Data,
    DataReturn,
    DataEnd,
    /// The beginning of a line of trailers; an empty one is the end.
    Line,
    /// In such a line.
    Trailer,
    TrailerEnd,
    Last,
    Ended,
}

impl Chunked {
    /// Takes what comes next.
    pub(crate) fn next(&mut self, octets: &mut BytesMut) -> Result<Decoded, BodyError> {
        loop {
            if self.state == State::Ended {
                return self.ended();
            }
            let Some(octet) = octets.first().copied() else { return Ok(Decoded::More) };
            if self.state == State::Data {
                let data = up_to(octets, self.size);
                self.size -= data.len() as u64;
                if self.size == 0 {
                    self.state = State::DataReturn;
                }
                return Ok(Decoded::Data(data));
            }
            octets.advance(1);
            self.state = self.step(octet)?;
        }
    }

    fn step(&mut self, octet: u8) -> Result<State, BodyError> {
        match (self.state, octet) {
            (State::Size, b'\r') if self.digits > 0 => Ok(State::LineEnd),
            (State::Size, b'\t' | b' ') if self.digits > 0 => self.extension(State::Blank),
            (State::Size, b';') if self.digits > 0 => self.extension(State::Extension),
            (State::Size, _) => self.digit(octet),
            (State::Blank, b'\t' | b' ') => self.extension(State::Blank),
            (State::Blank, b';') => self.extension(State::Extension),
            (State::Blank | State::Extension, b'\r') => Ok(State::LineEnd),
            (State::Extension, b'\n') => Err(BodyError::Size),
            (State::Extension, _) => self.extension(State::Extension),
            (State::LineEnd, b'\n') => {
                self.digits = 0;
                Ok(if self.size == 0 { State::Line } else { State::Data })
            }
            (State::DataReturn, b'\r') => Ok(State::DataEnd),
            (State::DataEnd, b'\n') => Ok(State::Size),
            (State::DataReturn | State::DataEnd, _) => Err(BodyError::Chunk),
            (State::Line, b'\r') => Ok(State::Last),
            (State::Line | State::Trailer, b'\n') => Err(BodyError::Trailers),
            (State::Trailer, b'\r') => self.trailer(octet, State::TrailerEnd),
            (State::Line | State::Trailer, _) => self.trailer(octet, State::Trailer),
            (State::TrailerEnd, b'\n') => self.trailer(octet, State::Line),
            (State::Last, b'\n') => Ok(State::Ended),
            (State::TrailerEnd | State::Last, _) => Err(BodyError::Trailers),
            (State::Blank | State::LineEnd | State::Data | State::Ended, _) => Err(BodyError::Size),
        }
    }

    fn digit(&mut self, octet: u8) -> Result<State, BodyError> {
        let digit = char::from(octet).to_digit(16).ok_or(BodyError::Size)?;
        if self.digits == MAX_DIGITS {
            return Err(BodyError::Size);
        }
        self.digits += 1;
        self.size = self.size << 4 | u64::from(digit);
        Ok(State::Size)
    }

    fn extension(&mut self, next: State) -> Result<State, BodyError> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS { Err(BodyError::Extensions) } else { Ok(next) }
    }

    fn trailer(&mut self, octet: u8, next: State) -> Result<State, BodyError> {
        if self.trailers.len() == MAX_TRAILERS {
            return Err(BodyError::Trailers);
        }
        self.trailers.extend_from_slice(&[octet]);
        Ok(next)
    }

    fn ended(&mut self) -> Result<Decoded, BodyError> {
        if self.trailers.is_empty() {
            return Ok(Decoded::End);
        }
        self.trailers.extend_from_slice(b"\r\n");
        let read = std::mem::take(&mut self.trailers).freeze();
        let mut places = [httparse::EMPTY_HEADER; MAX_FIELDS];
        match httparse::parse_headers(&read, &mut places) {
            Ok(httparse::Status::Complete((length, parsed))) if length == read.len() => {
                answer::fields(&read, parsed).map(Decoded::Trailers).map_err(|_| BodyError::Trailers)
            }
            Ok(_) | Err(_) => Err(BodyError::Trailers),
        }
    }
}
