//! Bodies: passed on frame by frame, counted, and held only where they are short and may have to be sent again.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    fields,
    kept::Turn,
    lease::Lease,
    ledger::Ledger,
    reply::{Flag, Refusal},
};
use crate::{
    inbound::Chunk,
    telemetry::{Sender, is_malformed},
    upstream::{AnswerBody, AnswerError},
};

/// The body of a request on its way to an endpoint.
pub(crate) struct RequestBody {
    source: Sent,
    /// What has been read of a live one ahead of its being sent.
    begun: Option<Bytes>,
    /// Whose it is; none of a copy.
    ledger: Option<Rc<Ledger>>,
}

enum Sent {
    /// As it comes; gone once it was given away.
    Live(Option<Incoming>),
    /// Held in memory, to be sent as often as needed: what there is of it, and how much of that is sent.
    Held { data: Bytes, sent: bool },
    /// As it comes, and what has come once more.
    Kept(Turn),
}

/// The longest body that is held, or kept as it comes, to be sent again. A longer one is passed on as it comes, and sent once.
pub(super) const MAX_HELD: u64 = 64 << 10;

impl RequestBody {
    /// The client's, as it comes.
    pub(super) fn live(incoming: Incoming, ledger: Rc<Ledger>) -> Self {
        ledger.uploading.set(!incoming.is_end_stream());
        Self { source: Sent::Live(Some(incoming)), begun: None, ledger: Some(ledger) }
    }

    /// One of our own.
    pub(super) const fn own(data: Bytes) -> Self {
        Self { source: Sent::Held { data, sent: false }, begun: None, ledger: None }
    }

    /// Reads so many octets ahead, or all where there are no more: the body still to be sent, its beginning, and whether that is
    /// all of it.
    ///
    /// # Errors
    /// The client broke off.
    pub(super) async fn read_ahead(mut self, most: usize) -> Result<(Self, Bytes, bool), Refusal> {
        if let Sent::Held { data, .. } = &self.source {
            let shown = data.slice(..data.len().min(most));
            let is_whole = data.len() <= most;
            return Ok((self, shown, is_whole));
        }
        let mut data = Vec::from(self.begun.take().unwrap_or_default());
        if let Sent::Live(Some(incoming)) = &mut self.source {
            while data.len() <= most {
                let next = poll_fn(|cx| poll_client(incoming, self.ledger.as_deref(), cx)).await;
                match next.transpose().map_err(broke_off)? {
                    Some(frame) => frame.into_data().into_iter().for_each(|part| data.extend_from_slice(&part)),
                    None => {
                        self.uploaded();
                        let data = Bytes::from(data);
                        self.source = Sent::Held { data: data.clone(), sent: false };
                        return Ok((self, data, true));
                    }
                }
            }
        }
        let data = Bytes::from(data);
        self.begun = Some(data.clone());
        Ok((self, data.slice(..data.len().min(most)), false))
    }

    /// The same, held in memory where it says that it has no more octets than that.
    ///
    /// # Errors
    /// The client broke off.
    pub(super) async fn held(mut self, most: u64) -> Result<Self, Refusal> {
        let Sent::Live(Some(incoming)) = &mut self.source else { return Ok(self) };
        if self.begun.is_some() {
            return Ok(self);
        }
        let length = incoming.size_hint().exact();
        if length.is_none_or(|length| length > most) {
            return Ok(self);
        }
        let mut data = Vec::with_capacity(usize::try_from(length.unwrap_or_default()).unwrap_or_default());
        while let Some(frame) = poll_fn(|cx| poll_client(incoming, self.ledger.as_deref(), cx)).await {
            match frame.map_err(broke_off)?.into_data() {
                Ok(part) => data.extend_from_slice(&part),
                // Trailers of a request with a length say nothing that an application waits for.
                Err(_trailers) => break,
            }
        }
        self.uploaded();
        self.source = Sent::Held { data: data.into(), sent: false };
        Ok(self)
    }

    /// The same, of which what has come is kept where it has not said how long it is, as long as that is no more than [`MAX_HELD`].
    pub(super) fn kept(mut self) -> Self {
        let is_open = |incoming: &Incoming| incoming.size_hint().exact().is_none();
        if let Sent::Live(incoming) = &mut self.source
            && let Some(incoming) = incoming.take_if(|incoming| is_open(incoming))
        {
            self.source = Sent::Kept(Turn::first(incoming, self.begun.take().as_ref()));
        }
        self
    }

    /// Whether it is kept as it comes.
    pub(super) const fn is_kept(&self) -> bool {
        matches!(self.source, Sent::Kept(_))
    }

    /// What one attempt sends. A live body goes with it, and is only there again if it comes back unsent.
    pub(super) fn take(&mut self) -> Self {
        let source = match &mut self.source {
            Sent::Live(incoming) => Sent::Live(incoming.take()),
            Sent::Held { data, .. } => Sent::Held { data: data.clone(), sent: false },
            Sent::Kept(turn) => {
                self.ledger.iter().for_each(|ledger| ledger.uploading.set(turn.is_coming()));
                Sent::Kept(turn.next())
            }
        };
        Self { source, begun: self.begun.take(), ledger: self.ledger.clone() }
    }

    /// A copy of what is held, of which nobody keeps an account.
    pub(super) fn copy(&self) -> Option<Self> {
        match &self.source {
            Sent::Live(_) => None,
            Sent::Held { data, .. } => Some(Self::own(data.clone())),
            Sent::Kept(turn) => turn.whole().map(Self::own),
        }
    }

    /// Ready once what it is part of is cut off, since nothing moves.
    pub(crate) fn poll_cut(&self, cx: &Context<'_>) -> Poll<RequestError> {
        self.ledger.as_ref().map_or(Poll::Pending, |ledger| ledger.flow.poll_cut(cx).map(|()| RequestError::Cut))
    }

    fn uploaded(&self) {
        if let Some(ledger) = &self.ledger {
            ledger.flow.came(0);
            ledger.uploading.set(false);
        }
    }

    /// Whether there is anything to send.
    pub(super) fn is_there(&self) -> bool {
        match &self.source {
            Sent::Live(incoming) => incoming.is_some(),
            Sent::Held { .. } => true,
            Sent::Kept(turn) => turn.is_there(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // One that was given away is another's to tell of.
        let is_own = match &self.source {
            Sent::Live(incoming) => incoming.is_some(),
            Sent::Held { .. } => false,
            Sent::Kept(turn) => turn.is_last(),
        };
        if is_own {
            self.uploaded();
        }
    }
}

/// Why a request ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The client's connection failed.
    #[error(transparent)]
    Client(#[from] hyper::Error),
    /// The client took it back by a reset that says that there is no error, which hyper takes for an end.
    #[error("the stream was reset before its end")]
    Reset,
    /// It was cut off, since nothing moved.
    #[error("nothing moved for too long")]
    Cut,
    /// A later attempt sends it.
    #[error("a later attempt sends the request")]
    SentAgain,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestError>>> {
        let this = self.as_mut().get_mut();
        let begun = this.begun.take();
        let frame = match &mut this.source {
            Sent::Live(_) if begun.is_some() => begun.map(|begun| Ok(Frame::data(begun))),
            Sent::Live(Some(incoming)) => ready!(poll_client(incoming, this.ledger.as_deref(), cx)),
            Sent::Live(None) => None,
            Sent::Held { data, sent } => {
                let first = !std::mem::replace(sent, true);
                (first && !data.is_empty()).then(|| Ok(Frame::data(data.clone())))
            }
            Sent::Kept(turn) => ready!(turn.poll(this.ledger.as_deref(), cx)),
        };
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
        if let (Some(data), Some(ledger)) = (data, &self.ledger) {
            ledger.sent.set(ledger.sent.get() + data.len() as u64);
        }
        if let (Some(Err(RequestError::Client(error))), Some(ledger)) = (&frame, &self.ledger) {
            ledger.note_broken_body(Sender::Client, is_malformed(error));
        }
        Poll::Ready(frame.map(|frame| frame.map(with_clean_trailers)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Sent::Live(incoming) => self.begun.is_none() && incoming.as_ref().is_none_or(Body::is_end_stream),
            Sent::Held { data, sent } => *sent || data.is_empty(),
            Sent::Kept(turn) => turn.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Sent::Live(Some(incoming)) => {
                let (begun, mut hint) = (self.begun.as_ref().map_or(0, Bytes::len) as u64, incoming.size_hint());
                if let Some(exact) = hint.exact().filter(|_| begun > 0) {
                    hint.set_exact(exact + begun);
                }
                hint
            }
            Sent::Live(None) => SizeHint::with_exact(0),
            Sent::Held { data, sent } => SizeHint::with_exact(if *sent { 0 } else { data.len() as u64 }),
            // Sent again it is as it was: without a length, so that trailers may follow.
            Sent::Kept(_) => SizeHint::default(),
        }
    }
}

/// What comes next of a client's body; while nothing does, it is the client that is waited for.
pub(super) fn poll_client(
    incoming: &mut Incoming,
    ledger: Option<&Ledger>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, RequestError>>> {
    let is_measured = incoming.size_hint().exact().is_some();
    let polled = Pin::new(&mut *incoming).poll_frame(cx);
    if let Some(ledger) = ledger {
        match &polled {
            Poll::Pending if ledger.flow.poll_cut(cx).is_ready() => return Poll::Ready(Some(Err(RequestError::Cut))),
            Poll::Pending => ledger.flow.awaits(is_measured),
            Poll::Ready(None) if ledger.is_http2() && !incoming.is_end_stream() => {
                ledger.is_broken_off.set(true);
                return Poll::Ready(Some(Err(RequestError::Reset)));
            }
            Poll::Ready(Some(Ok(frame))) => ledger.flow.came(frame.data_ref().map_or(0, Bytes::len)),
            Poll::Ready(_) => ledger.flow.came(0),
        }
    }
    polled.map_err(RequestError::Client)
}

fn broke_off(_: RequestError) -> Refusal {
    Refusal::new(400, "the request broke off", Flag::DownstreamTermination)
}

/// Removes the fields that are not allowed in trailers.
fn with_clean_trailers(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        fields::prepare_trailers(trailers);
    }
    frame
}

/// Why a response ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplyError {
    /// The endpoint broke off.
    #[error(transparent)]
    Upstream(AnswerError),
    /// It took longer than the rule lets it.
    #[error("the response took too long")]
    Timeout,
}

/// The body of a response on its way to the client.
pub(crate) struct ReplyBody {
    source: Source,
    ledger: Rc<Ledger>,
    /// The connection that it comes by, until it has all come.
    lease: Option<Lease>,
    /// When all of it has to be there.
    deadline: Option<Pin<Box<Sleep>>>,
}

enum Source {
    Upstream(AnswerBody),
    Text(Option<Bytes>),
}

impl ReplyBody {
    /// An endpoint's, as it comes.
    pub(super) fn upstream(body: AnswerBody, ledger: Rc<Ledger>, lease: Lease) -> Self {
        Self { source: Source::Upstream(body), ledger, lease: Some(lease), deadline: None }
    }

    /// The same, cut off then.
    pub(super) fn until(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        self
    }

    /// A short text of our own.
    pub(super) fn text(text: Bytes, ledger: Rc<Ledger>) -> Self {
        let text = Some(text).filter(|text| !text.is_empty());
        Self { source: Source::Text(text), ledger, lease: None, deadline: None }
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
    type Data = Chunk;
    type Error = ReplyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, ReplyError>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.ledger.note_flag(Flag::UpstreamTimeout);
            return Poll::Ready(Some(Err(ReplyError::Timeout)));
        }
        let frame = match &mut self.source {
            Source::Upstream(body) => ready!(Pin::new(body).poll_frame(cx)),
            Source::Text(text) => text.take().map(|text| Ok(Frame::data(text))),
        };
        match &frame {
            Some(Ok(frame)) => {
                let count = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.ledger.received.set(self.ledger.received.get() + count);
                frame.trailers_ref().into_iter().for_each(|trailers| self.ledger.note_grpc(trailers));
            }
            Some(Err(error)) => {
                self.ledger.note_flag(Flag::UpstreamTermination);
                self.ledger.note_broken_body(Sender::Endpoint, error.is_malformed());
            }
            None => self.finish(),
        }
        let with_chunk = |frame: Frame<Bytes>| frame.map_data(|octets| self.ledger.chunk(octets));
        Poll::Ready(frame.map(|frame| frame.map(with_clean_trailers).map(with_chunk).map_err(ReplyError::Upstream)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Upstream(body) => body.is_end_stream(),
            Source::Text(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Upstream(body) => body.size_hint(),
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
            let is_cut = self.ledger.flow.why_cut().is_some();
            self.ledger.note_flag(if is_cut { Flag::StreamIdle } else { Flag::DownstreamTermination });
        }
    }
}
