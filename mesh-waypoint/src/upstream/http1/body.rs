//! The body of an answer, read off its connection as somebody wants it.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mesh_http1::{Answer, BodyError, Decoded, Decoder};

use super::{Http1Error, wire::Wire};

/// The body of an answer. To drop it before its end breaks the connection.
pub(crate) struct Http1Body {
    decoder: Decoder,
    /// None once all of it has come.
    wire: Option<Rc<Wire>>,
}

impl Http1Body {
    pub(super) fn new(wire: &Rc<Wire>, answer: &Answer) -> Self {
        let is_kept = answer.is_kept && wire.is_kept.get();
        wire.is_kept.set(is_kept);
        let mut body = Self { decoder: Decoder::new(answer.framing), wire: Some(wire.clone()) };
        body.finish_if_ended();
        body
    }

    /// Its connection is free once it has ended.
    fn finish_if_ended(&mut self) {
        if self.decoder.is_ended()
            && let Some(wire) = self.wire.take()
        {
            wire.is_reading.set(false);
        }
    }
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = Http1Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Http1Error>>> {
        let this = &mut *self;
        loop {
            let Some(wire) = &this.wire else { return Poll::Ready(None) };
            if wire.is_broken.get() {
                return Poll::Ready(Some(Err(BodyError::Cut.into())));
            }
            let frame = match this.decoder.next(&mut wire.read.borrow_mut()) {
                Ok(Decoded::Data(data)) => Some(Ok(Frame::data(data))),
                Ok(Decoded::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Ok(Decoded::End | Decoded::More) => None,
                Err(error) => Some(Err(error.into())),
            };
            if frame.is_none() && !this.decoder.is_ended() {
                if wire.is_writing.get() {
                    wire.reader.set(Some(cx.waker().clone()));
                }
                if ready!(wire.poll_read(cx))? == 0
                    && let Err(error) = this.decoder.cut()
                {
                    return Poll::Ready(Some(Err(error.into())));
                }
                continue;
            }
            this.finish_if_ended();
            return Poll::Ready(frame);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.wire.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Http1Body {
    fn drop(&mut self) {
        if let Some(wire) = &self.wire {
            wire.is_abandoned.set(true);
            if let Some(writer) = wire.writer.take() {
                writer.wake();
            }
        }
    }
}
