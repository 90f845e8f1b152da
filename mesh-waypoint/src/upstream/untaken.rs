//! Whether an endpoint takes the bodies of the requests that share a connection.
//!
//! What an endpoint of HTTP/2 leaves unread of one body counts against the window that all bodies of the connection have. Many
//! give a stream as much as the whole connection (gRPC's default is 64 KiB for both), so that one upload that nobody reads holds
//! up all others. Whose it is cannot be changed from here; requests that come later can have another connection.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::exchange::{RequestBody, RequestError};

/// How many bodies of one connection have more to send than the endpoint has room for.
#[derive(Debug, Clone, Default)]
pub(super) struct Untaken(Rc<Cell<usize>>);

impl Untaken {
    /// Whether there is none.
    pub(super) fn is_none(&self) -> bool {
        self.0.get() == 0
    }
}

/// A request's body on such a connection.
pub(crate) struct SharedBody {
    body: RequestBody,
    share: Share,
}

/// One body's part in the count.
struct Share {
    untaken: Untaken,
    is_counted: bool,
}

impl SharedBody {
    pub(super) const fn new(body: RequestBody, untaken: Untaken) -> Self {
        Self { body, share: Share { untaken, is_counted: false } }
    }

    /// The request's own.
    pub(crate) fn into_inner(self) -> RequestBody {
        self.body
    }
}

impl Share {
    fn set(&mut self, is_untaken: bool) {
        let Untaken(count) = &self.untaken;
        match (std::mem::replace(&mut self.is_counted, is_untaken), is_untaken) {
            (false, true) => count.set(count.get() + 1),
            (true, false) => count.set(count.get() - 1),
            _ => {}
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(false);
    }
}

impl Body for SharedBody {
    type Data = Bytes;
    type Error = RequestError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // As long as there is room the next part is asked for at once, and then either comes or is waited for.
        let is_untaken = matches!(polled, Poll::Ready(Some(Ok(_)))) && !self.body.is_end_stream();
        self.share.set(is_untaken);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
