//! A request on its way out.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use http::request::Parts;
use http_body::Body as _;
use mesh_http1::{Encoder, Outgoing, write_head};

use super::{Http1Error, RequestBody, wire::Wire};

/// Room for a usual head.
const HEAD: usize = 1 << 10;
/// Octets of a body that are gathered to be written at once.
const GATHER: usize = 16 << 10;

/// A request on its way out.
pub(super) struct Upload {
    body: RequestBody,
    encoder: Encoder,
    /// All of the body has been taken.
    is_taken: bool,
    /// Some of it has.
    is_begun: bool,
    /// What is to be written, and how much of that has been.
    octets: Vec<u8>,
    written: usize,
    is_flushed: bool,
}

impl Upload {
    pub(super) fn new(parts: &Parts, body: RequestBody, outgoing: Outgoing) -> Self {
        let mut octets = Vec::with_capacity(HEAD);
        write_head(parts, outgoing, &mut octets);
        let is_taken = outgoing == Outgoing::None;
        let encoder = Encoder::new(outgoing);
        Self { body, encoder, is_taken, is_begun: false, octets, written: 0, is_flushed: true }
    }

    /// Whether nothing has been written, nor taken from the client.
    pub(super) const fn is_untouched(&self) -> bool {
        self.is_flushed && self.written == 0 && !self.is_begun
    }

    /// The body, as it was.
    pub(super) fn into_body(self) -> RequestBody {
        self.body
    }

    /// Ready once all has gone out.
    pub(super) fn poll(&mut self, wire: &Wire, cx: &mut Context<'_>) -> Poll<Result<(), Http1Error>> {
        loop {
            self.gather(cx)?;
            if self.written < self.octets.len() {
                let Poll::Ready(count) = wire.poll_write(cx, &self.octets[self.written..]) else {
                    return self.body.poll_cut(cx).map(|cut| Err(cut.into()));
                };
                self.written += count?;
                self.is_flushed = false;
                if self.written == self.octets.len() {
                    (self.octets, self.written) = (Vec::new(), 0);
                }
                continue;
            }
            if !self.is_flushed {
                ready!(wire.poll_flush(cx))?;
                self.is_flushed = true;
            }
            return if self.is_taken { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
    }

    /// Takes what there is of the body, as far as there is room.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), Http1Error> {
        while !self.is_taken && self.octets.len() - self.written < GATHER {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else { break };
            self.is_begun = true;
            let mut trailers = None;
            match frame.transpose()?.map(http_body::Frame::into_data) {
                Some(Ok(data)) => {
                    self.encoder.data(&data, &mut self.octets)?;
                    if !self.body.is_end_stream() {
                        continue;
                    }
                }
                Some(Err(frame)) => trailers = frame.into_trailers().ok(),
                None => {}
            }
            self.encoder.end(trailers.as_ref(), &mut self.octets)?;
            self.is_taken = true;
        }
        Ok(())
    }

    /// Sends the rest while the answer is passed on.
    pub(super) async fn go_on(mut self, wire: Rc<Wire>) {
        let ended = poll_fn(|cx| {
            if wire.is_abandoned.get() {
                return Poll::Ready(Ok(()));
            }
            wire.writer.set(Some(cx.waker().clone()));
            self.poll(&wire, cx)
        });
        match ended.await {
            Ok(()) => wire.is_writing.set(false),
            Err(error) => {
                tracing::debug!(%error, "a request ended before its end");
                wire.is_broken.set(error.is_clients());
                wire.is_kept.set(false);
                if let Some(reader) = wire.reader.take() {
                    reader.wake();
                }
            }
        }
    }
}
