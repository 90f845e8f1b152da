//! A session's records, read and written by polling: what every byte stream over TLS has in common.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

use super::Session;
use crate::buffer::{Buffer, Sizing};
use crate::record::{HEADER, MAX_CONTENT, OVERHEAD, Opened, RecordError};
use crate::socket::write_now;

/// A full record on the wire.
const SLOT: usize = MAX_CONTENT + OVERHEAD;

/// The records of a session.
pub(crate) struct ByteStream {
    session: Box<Session>,
    /// Of the input's start: plain bytes that were opened and not yet read, and what follows them of their record.
    plain: Option<Plain>,
    output: Option<Output>,
    sizing: Sizing,
    /// What the content of each record begins with, before the bytes that are written.
    lead: Option<u8>,
}

struct Plain {
    content: Range<usize>,
    length: usize,
}

/// Sealed bytes that the socket has not taken.
struct Output {
    buffer: Buffer,
    part: Range<usize>,
}

/// What came.
pub(crate) enum Came {
    /// A record with data, at the input's start.
    Data {
        /// Where its content stands in the input.
        content: Range<usize>,
        /// Bytes of input that it takes.
        length: usize,
    },
    /// close_notify.
    Closed,
}

pub(crate) fn broken(error: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl ByteStream {
    pub(crate) fn new(session: Box<Session>, lead: Option<u8>) -> Self {
        Self { session, plain: None, output: None, sizing: Sizing::default(), lead }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// The session, for whoever goes on with it. What was opened and not read, or sealed and not sent, is lost.
    pub(crate) fn into_session(self) -> Box<Session> {
        self.session
    }

    /// Whether part of what was sealed has not gone out: nothing else can be sent before it.
    pub(crate) const fn has_output(&self) -> bool {
        self.output.is_some()
    }

    /// What came and was not used up.
    pub(crate) fn input(&mut self) -> &mut [u8] {
        self.session.input.bytes()
    }

    /// Copies opened bytes out. False when there are none.
    pub(crate) fn take_plain(&mut self, into: &mut ReadBuf<'_>) -> bool {
        let Some(plain) = &mut self.plain else { return false };
        let bytes = &self.session.input.bytes()[plain.content.clone()];
        let count = bytes.len().min(into.remaining());
        into.put_slice(&bytes[..count]);
        plain.content.start += count;
        if plain.content.is_empty() {
            let length = plain.length;
            self.plain = None;
            self.session.input.consume(length);
        }
        count > 0
    }

    /// Keeps a part of a record that came for [`Self::take_plain`]; a record without any is used up.
    pub(crate) fn keep_plain(&mut self, content: Range<usize>, length: usize) {
        if content.is_empty() {
            return self.use_up(length);
        }
        self.plain = Some(Plain { content, length });
    }

    /// Uses a record up that came.
    pub(crate) fn use_up(&mut self, length: usize) {
        self.session.input.consume(length);
    }

    /// The next record that is the stream's. Without close_notify somebody may have cut it short, which is an error.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Came>> {
        loop {
            let opened = self.session.keys.get_mut().open(self.session.input.bytes()).map_err(broken)?;
            match opened {
                Opened::Handled { length } => self.use_up(length),
                Opened::Data { content, length } => return Poll::Ready(Ok(Came::Data { content, length })),
                Opened::Closed => return Poll::Ready(Ok(Came::Closed)),
                Opened::Incomplete => {
                    if ready!(self.session.input.poll_fill(&self.session.socket, cx))? == 0 {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
    }

    /// Sends what was sealed.
    pub(crate) fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(output) = &mut self.output {
            let slice = IoSlice::new(&output.buffer[output.part.clone()]);
            match write_now(&self.session.socket, &[slice])? {
                Some(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Some(count) => output.part.start += count,
                None => ready!(self.session.socket.poll_write_ready(cx))?,
            }
            if output.part.is_empty() {
                self.output = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes as much of `slices` as a buffer takes; what the socket does not take now goes with the next write or flush.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_output(cx))?;
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let taken = self.seal(slices).map_err(broken)?;
        if let Poll::Ready(Err(error)) = self.poll_output(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    /// Seals as much of `slices` as a buffer takes. Returns how much that was.
    fn seal(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, RecordError> {
        let asked: usize = slices.iter().map(|slice| slice.len()).sum();
        let keys = self.session.keys.get_mut();
        let mut buffer = self.sizing.buffer();
        let mut end = 0;
        if let Some(update) = keys.key_update()? {
            buffer[..update.len()].copy_from_slice(&update);
            end = update.len();
        }
        let mut source = slices.iter().flat_map(|slice| slice.chunks(MAX_CONTENT));
        let (mut rest, mut taken): (&[u8], usize) = (&[], 0);
        let lead = usize::from(self.lead.is_some());
        while end + OVERHEAD + lead < buffer.len() {
            let room = (buffer.len() - end).min(SLOT);
            let content = &mut buffer[end + HEADER..end + room - (OVERHEAD - HEADER)];
            if let Some(lead) = self.lead {
                content[0] = lead;
            }
            let mut filled = lead;
            while filled < content.len() {
                if rest.is_empty() {
                    let Some(next) = source.next() else { break };
                    rest = next;
                    continue;
                }
                let count = rest.len().min(content.len() - filled);
                content[filled..filled + count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                filled += count;
            }
            if filled == lead {
                break;
            }
            let next = end + filled + OVERHEAD;
            keys.seal(&mut buffer[end..next])?;
            end = next;
            taken += filled - lead;
        }
        self.sizing.learn(asked.min(self.sizing.capacity()), taken.max(1));
        self.output = Some(Output { buffer, part: 0..end });
        Ok(taken)
    }

    /// Has a sealed record go out next. Nothing else may wait to.
    pub(crate) fn put(&mut self, record: &[u8]) {
        let mut buffer = Sizing::default().buffer();
        buffer[..record.len()].copy_from_slice(record);
        self.output = Some(Output { buffer, part: 0..record.len() });
    }
}
