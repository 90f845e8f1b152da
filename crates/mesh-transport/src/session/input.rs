//! Bytes read from a socket and not yet used up; no buffer while there are none.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

use crate::buffer::{Buffer, Sizing};
use crate::socket::{poll_readable, read_now};

/// What was read and not yet consumed.
#[derive(Default)]
pub(crate) struct Input {
    buffer: Option<Buffer>,
    part: Range<usize>,
    sizing: Sizing,
}

impl Input {
    /// With bytes that were read by other means.
    pub(crate) fn holding(bytes: &[u8]) -> Self {
        let mut input = Self::default();
        if !bytes.is_empty() {
            let mut buffer = input.sizing.buffer_for(bytes.len());
            buffer[..bytes.len()].copy_from_slice(bytes);
            input.buffer = Some(buffer);
            input.part = 0..bytes.len();
        }
        input
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.part.is_empty()
    }

    /// What is there.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        match &mut self.buffer {
            Some(buffer) => &mut buffer[self.part.clone()],
            None => &mut [],
        }
    }

    /// Uses up the first `count` bytes; the buffer goes with the last of them.
    pub(crate) fn consume(&mut self, count: usize) {
        self.part.start = (self.part.start + count).min(self.part.end);
        if self.part.is_empty() {
            self.buffer = None;
            self.part = 0..0;
        }
    }

    /// Adds what the socket has, waiting for it without a buffer. `Ok(0)` is the end of the stream.
    pub(crate) async fn fill(&mut self, socket: &TcpStream) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(socket, cx)).await
    }

    pub(crate) fn poll_fill(&mut self, socket: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(poll_readable(socket, cx))?;
            if let Some(count) = self.read(socket)? {
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn read(&mut self, socket: &TcpStream) -> io::Result<Option<usize>> {
        let kept = self.part.len();
        let mut buffer = match self.buffer.take() {
            Some(mut old) if old.len() >= self.sizing.capacity().max(kept + 1) => {
                old.copy_within(self.part.clone(), 0);
                old
            }
            old => {
                let mut new = self.sizing.buffer_for(kept + 1);
                if let Some(old) = old {
                    new[..kept].copy_from_slice(&old[self.part.clone()]);
                }
                new
            }
        };
        let asked = buffer.len() - kept;
        let result = read_now(socket, &mut buffer[kept..]);
        let count = *result.as_ref().ok().and_then(Option::as_ref).unwrap_or(&0);
        if count > 0 {
            self.sizing.learn(asked, count);
        }
        self.part = 0..kept + count;
        if !self.part.is_empty() {
            self.buffer = Some(buffer);
        }
        result
    }
}
