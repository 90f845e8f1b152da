//! Bodies: passed on frame by frame, counted, and never held.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{lease::Lease, ledger::Ledger, reply::Flag};

/// The body of a request on its way to an endpoint.
pub(crate) struct RequestBody {
    incoming: Incoming,
    ledger: Rc<Ledger>,
}

impl RequestBody {
    /// The client's, as it comes.
    pub(super) fn live(incoming: Incoming, ledger: Rc<Ledger>) -> Self {
        ledger.uploading.set(!incoming.is_end_stream());
        Self { incoming, ledger }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.ledger.uploading.set(false);
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref) {
            self.ledger.sent.set(self.ledger.sent.get() + data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The body of a response on its way to the client.
pub(crate) struct ReplyBody {
    source: Source,
    ledger: Rc<Ledger>,
    /// The connection that it comes by, until it has all come.
    lease: Option<Lease>,
}

enum Source {
    Upstream(Incoming),
    Text(Option<Bytes>),
}

impl ReplyBody {
    /// An endpoint's, as it comes.
    pub(super) fn upstream(incoming: Incoming, ledger: Rc<Ledger>, lease: Lease) -> Self {
        Self { source: Source::Upstream(incoming), ledger, lease: Some(lease) }
    }

    /// A short text of our own.
    pub(super) fn text(text: Bytes, ledger: Rc<Ledger>) -> Self {
        let text = Some(text).filter(|text| !text.is_empty());
        Self { source: Source::Text(text), ledger, lease: None }
    }

    /// All has come: the connection is the next request's, unless this one's body is still on its way.
    fn finish(&mut self) {
        if let Some(lease) = self.lease.take()
            && !self.ledger.uploading.get()
        {
            lease.give_back();
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match &mut self.source {
            Source::Upstream(incoming) => ready!(Pin::new(incoming).poll_frame(cx)),
            Source::Text(text) => text.take().map(|text| Ok(Frame::data(text))),
        };
        match &frame {
            Some(Ok(frame)) => {
                let count = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.ledger.received.set(self.ledger.received.get() + count);
            }
            Some(Err(_)) => self.ledger.note_flag(Flag::UpstreamTermination),
            None => self.finish(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Upstream(incoming) => incoming.is_end_stream(),
            Source::Text(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Upstream(incoming) => incoming.size_hint(),
            Source::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        // hyper drops a body that has ended without asking it for its end.
        if self.is_end_stream() {
            self.finish();
        } else if self.lease.is_some() {
            self.ledger.note_flag(Flag::DownstreamTermination);
        }
    }
}
