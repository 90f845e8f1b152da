//! HTTP/1.1 to an endpoint: a connection that one request at a time has, and drives by itself.
//!
//! There is no task beside the request's own, but where an endpoint answers before it has heard all: then the rest of the request
//! is sent by a task of its own, while the answer is passed on. A connection that waits, for a request or for an answer, holds no
//! buffer.

mod body;
mod upload;
mod wire;

use std::{
    future::poll_fn,
    rc::{Rc, Weak},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http::{Method, Request, Response, Version};
use http_body::Body as _;
use mesh_http1::{Answer, Answers, BodyError, HeadError, LengthError, Outgoing};
use tokio::task::spawn_local;

pub(crate) use self::body::Http1Body;
use self::{upload::Upload, wire::Wire};
use super::{
    Stream,
    open::LookedAfter,
    reach::{Look, SILENCE, SILENCE_OF_SHARED},
    state::{ClusterState, Count},
};
use crate::{
    duplex::{self, Duplex, Prefixed},
    exchange::{RequestBody, RequestError},
};

/// How long an endpoint may take to close its side of a connection that is done with.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Http1Error {
    /// The connection ended before the answer's head had come.
    #[error("the endpoint closed the connection before its answer")]
    Closed,
    /// The connection failed.
    #[error(transparent)]
    Failed(#[from] std::io::Error),
    /// What came is no answer.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// What came is no body, or not all of it.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The client's body is not as long as it was said to be.
    #[error(transparent)]
    Length(#[from] LengthError),
    /// The client's body broke off.
    #[error(transparent)]
    Client(#[from] RequestError),
}

impl Http1Error {
    /// Whether it is the client that broke off.
    pub(crate) const fn is_clients(&self) -> bool {
        matches!(self, Self::Length(_) | Self::Client(_))
    }

    /// Whether what came breaks HTTP's rules.
    pub(crate) const fn is_malformed(&self) -> bool {
        matches!(self, Self::Head(_) | Self::Body(_))
    }
}

/// A request without an answer.
pub(crate) enum Unanswered {
    /// Nothing of it has gone out, and it is as it was.
    Unsent(Box<Request<RequestBody>>),
    /// Some of it may have.
    Failed(Http1Error),
}

/// A connection; one request at a time has it. To drop it closes it.
pub(crate) struct Http1Line {
    wire: Rc<Wire>,
    /// Requests that it has served.
    pub(super) served: u32,
    /// When it was connected.
    pub(super) opened: Instant,
    /// When the last of them ended.
    pub(super) used: Instant,
    _counted: Count<ClusterState>,
}

impl Http1Line {
    pub(super) fn new(stream: Stream, counted: Count<ClusterState>) -> Self {
        let opened = Instant::now();
        Self { wire: Rc::new(Wire::new(stream)), served: 0, opened, used: opened, _counted: counted }
    }

    /// Whether another request may follow.
    pub(super) fn is_over(&self) -> bool {
        self.wire.is_over()
    }

    /// Whether it is as it was left: the endpoint has neither ended it nor said anything since.
    pub(super) fn is_silent(&self) -> bool {
        self.wire.is_silent()
    }

    /// What looks after it while it has a request.
    pub(super) fn looked_after(&self) -> Weak<dyn LookedAfter> {
        let wire: Weak<Wire> = Rc::downgrade(&self.wire);
        wire
    }

    /// Whether it has served nothing yet.
    pub(crate) const fn is_new(&self) -> bool {
        self.served == 0
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// There is none. To drop the future breaks the connection.
    pub(crate) async fn send(&self, request: Request<RequestBody>) -> Result<Response<Http1Body>, Unanswered> {
        let wire = &self.wire;
        let (parts, body) = request.into_parts();
        let outgoing = outgoing(&parts.method, &body);
        wire.begin();
        let mut upload = Some(Upload::new(&parts, body, outgoing));
        let mut answers = Answers::to(parts.method.clone());
        let answered = poll_fn(|cx| {
            if let Some(sending) = &mut upload {
                match sending.poll(wire, cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => {
                        wire.is_writing.set(false);
                        upload = None;
                    }
                    Poll::Ready(Err(error)) if error.is_clients() || sending.is_untouched() => {
                        return Poll::Ready(Err(error));
                    }
                    // Who no longer listens may have said why.
                    Poll::Ready(Err(error)) => {
                        tracing::debug!(%error, "endpoint does not take all of a request");
                        upload = None;
                    }
                }
            }
            poll_answer(wire, &mut answers, cx)
        });
        match answered.await {
            Ok(mut answer) => {
                // Which one the endpoint speaks is this hop's affair (RFC 9110, section 2.5).
                answer.parts.version = Version::HTTP_11;
                if let Some(rest) = upload {
                    spawn_local(rest.go_on(wire.clone()));
                }
                let body = Http1Body::new(wire, &answer);
                Ok(Response::from_parts(answer.parts, body))
            }
            Err(error) => Err(match upload.filter(Upload::is_untouched) {
                Some(unsent) if !error.is_clients() => {
                    Unanswered::Unsent(Box::new(Request::from_parts(parts, unsent.into_body())))
                }
                _ => Unanswered::Failed(error),
            }),
        }
    }

    /// The stream, once it is another protocol's: with what has come of that already.
    pub(crate) fn other(&self) -> Option<Box<dyn Duplex>> {
        let stream = self.wire.stream.take()?;
        let read = self.wire.read.take().freeze();
        Some(Box::new(Prefixed::new(read, stream)))
    }

    /// Ends it in order, where the endpoint lets it: what is open has been heard to its end.
    pub(super) fn part(self) {
        if self.wire.is_busy() {
            return;
        }
        let Some(stream) = self.wire.stream.take() else { return };
        spawn_local(duplex::part(stream, GOODBYE));
    }
}

fn poll_answer(wire: &Wire, answers: &mut Answers, cx: &mut Context<'_>) -> Poll<Result<Answer, Http1Error>> {
    loop {
        if let Some(answer) = answers.next(&mut wire.read.borrow_mut())? {
            return Poll::Ready(Ok(answer));
        }
        if ready!(wire.poll_read(cx))? == 0 {
            return Poll::Ready(Err(Http1Error::Closed));
        }
    }
}

/// How a body goes out.
fn outgoing(method: &Method, body: &RequestBody) -> Outgoing {
    if *method == Method::CONNECT || body.is_end_stream() {
        return Outgoing::None;
    }
    body.size_hint().exact().map_or(Outgoing::Chunked, Outgoing::Length)
}
