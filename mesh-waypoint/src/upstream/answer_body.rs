//! The body of an endpoint's answer, by whichever version of HTTP it comes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::http1::{Http1Body, Http1Error};
use crate::telemetry::is_malformed;

/// An answer's body.
pub(crate) enum AnswerBody {
    Http1(Http1Body),
    Http2(Incoming),
}

/// Why an answer ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The endpoint's connection failed, or what came is no body.
    #[error(transparent)]
    Http1(Http1Error),
    /// The same by HTTP/2.
    #[error(transparent)]
    Http2(hyper::Error),
    /// The endpoint took it back by a reset that says that there is no error, which hyper takes for an end.
    #[error("the stream was reset before its end")]
    Reset,
}

impl AnswerError {
    /// Whether what came is not what its head says, or no body at all.
    pub(crate) fn is_malformed(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_malformed(),
            Self::Http2(error) => is_malformed(error),
            Self::Reset => false,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(AnswerError::Http1),
            Self::Http2(incoming) => match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                None if !incoming.is_end_stream() => Poll::Ready(Some(Err(AnswerError::Reset))),
                frame => Poll::Ready(frame.map(|frame| frame.map_err(AnswerError::Http2))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(incoming) => incoming.size_hint(),
        }
    }
}
