//! One direction of HTTP/1: heads and bodies in turn.

use memchr::memchr;

use super::head;
use crate::Lost;

/// Bytes of a head, or of a chunk's size with its extensions and of trailers, that are held where they come in pieces.
const MAX_HELD: usize = 64 << 10;

/// The last chunk and no trailers, after the line end of the chunk before (RFC 9112, section 7.1).
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked(Chunk),
    /// With the connection.
    ToEnd,
}

/// What comes next of a chunked body (RFC 9112, section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// A line with a size.
    Size,
    /// So many bytes of a chunk, and the end of its last line.
    Data(u64),
    /// Trailers, up to an empty line.
    Trailers,
    /// Anything of it: some was not seen, and bytes that end as the last chunk does end it.
    Unseen,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A head, in place or put together; the owner says what body follows.
    Head(Head<'a>),
    /// So many bytes of a body.
    Data(u64),
    /// The message is complete.
    End,
}

/// A head's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head<'a> {
    Whole(&'a [u8]),
    Joined(Vec<u8>),
}

impl Head<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Joined(bytes) => bytes,
        }
    }
}

/// The messages of one direction.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The body that is passing; none before a head.
    body: Option<Body>,
    /// The beginning of a head or line that is not complete.
    held: Vec<u8>,
}

impl Messages {
    /// After a head: what body it has.
    pub(super) fn expect(&mut self, body: Body) {
        self.body = Some(body);
    }

    /// The next thing in `bytes`, which lose what it is made of; none when they are used up.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Found<'a>>, Lost> {
        match self.body {
            None => Ok(self.head(bytes)?.map(Found::Head)),
            Some(Body::Length(0)) => {
                self.body = None;
                Ok(Some(Found::End))
            }
            Some(_) if bytes.is_empty() => Ok(None),
            Some(Body::ToEnd) => Ok(Some(Found::Data(std::mem::take(bytes).len() as u64))),
            Some(Body::Length(rest)) => {
                let passed = skip(bytes, rest);
                self.body = Some(Body::Length(rest - passed));
                Ok(Some(Found::Data(passed)))
            }
            Some(Body::Chunked(chunk)) => self.chunk(chunk, bytes),
        }
    }

    /// Whether a body is passing whose end may have been missed.
    pub(super) fn is_unseen(&self) -> bool {
        self.body == Some(Body::Chunked(Chunk::Unseen))
    }

    /// Passes over `count` bytes that are not shown, but for the `tail`: says how many of a body.
    pub(super) fn pass_over(&mut self, count: u64, tail: &[u8]) -> Result<u64, Lost> {
        self.body = Some(match self.body {
            Some(Body::ToEnd) => Body::ToEnd,
            Some(Body::Length(rest)) => Body::Length(rest.checked_sub(count).ok_or(Lost)?),
            Some(Body::Chunked(Chunk::Data(rest))) if count < rest => Body::Chunked(Chunk::Data(rest - count)),
            Some(Body::Chunked(_)) if tail.ends_with(LAST_CHUNK) => Body::Length(0),
            Some(Body::Chunked(_)) => Body::Chunked(Chunk::Unseen),
            None => return Err(Lost),
        });
        self.held.clear();
        Ok(count)
    }

    fn head<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Head<'a>>, Lost> {
        if self.held.is_empty() {
            // Empty lines before a message mean nothing (RFC 9112, section 2.2).
            while let [b'\r' | b'\n', rest @ ..] = bytes {
                *bytes = rest;
            }
            if let Some(end) = head::end(bytes, 0) {
                let (head, rest) = bytes.split_at(end);
                *bytes = rest;
                return Ok(Some(Head::Whole(head)));
            }
        }
        let before = self.held.len();
        self.hold(bytes, bytes.len())?;
        let Some(end) = head::end(&self.held, before) else {
            *bytes = &[];
            return Ok(None);
        };
        *bytes = &bytes[end - before..];
        self.held.truncate(end);
        Ok(Some(Head::Joined(std::mem::take(&mut self.held))))
    }

    fn chunk<'a>(&mut self, chunk: Chunk, bytes: &mut &'a [u8]) -> Result<Option<Found<'a>>, Lost> {
        match chunk {
            Chunk::Size => {
                let Some(line) = self.line(bytes)? else { return Ok(None) };
                let size = size(&line)?;
                // The line end after a chunk's data is skipped with the data.
                let next = if size == 0 { Chunk::Trailers } else { Chunk::Data(size.checked_add(2).ok_or(Lost)?) };
                self.body = Some(Body::Chunked(next));
                self.next(bytes)
            }
            Chunk::Data(rest) => {
                let passed = skip(bytes, rest);
                let next = if passed == rest { Chunk::Size } else { Chunk::Data(rest - passed) };
                self.body = Some(Body::Chunked(next));
                let line_end = |rest: u64| rest.min(2);
                Ok(Some(Found::Data(passed - (line_end(rest) - line_end(rest - passed)))))
            }
            Chunk::Unseen => {
                if bytes.ends_with(LAST_CHUNK) {
                    self.body = Some(Body::Length(0));
                }
                Ok(Some(Found::Data(std::mem::take(bytes).len() as u64)))
            }
            Chunk::Trailers => {
                while let Some(line) = self.line(bytes)? {
                    if line.is_empty() {
                        self.body = None;
                        return Ok(Some(Found::End));
                    }
                }
                Ok(None)
            }
        }
    }

    /// A line without its end, once it is complete.
    fn line(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, Lost> {
        let Some(end) = memchr(b'\n', bytes) else {
            self.hold(bytes, bytes.len())?;
            *bytes = &[];
            return Ok(None);
        };
        self.hold(bytes, end)?;
        *bytes = &bytes[end + 1..];
        let mut line = std::mem::take(&mut self.held);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }

    fn hold(&mut self, bytes: &[u8], count: usize) -> Result<(), Lost> {
        if self.held.len() + count > MAX_HELD {
            return Err(Lost);
        }
        self.held.extend_from_slice(&bytes[..count]);
        Ok(())
    }
}

/// Takes up to `most` bytes off the front; says how many.
fn skip(bytes: &mut &[u8], most: u64) -> u64 {
    let passed = usize::try_from(most).map_or(bytes.len(), |most| most.min(bytes.len()));
    *bytes = &bytes[passed..];
    passed as u64
}

/// A chunk's size; its extensions mean nothing here.
fn size(line: &[u8]) -> Result<u64, Lost> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let text = std::str::from_utf8(digits).map_err(|_| Lost)?;
    u64::from_str_radix(text, 16).map_err(|_| Lost)
}
