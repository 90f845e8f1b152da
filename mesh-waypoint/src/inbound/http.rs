//! A client's HTTP connection: served within bounds, drained, and handed over when it becomes something else.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::poll_fn,
    pin::pin,
    rc::Rc,
    time::Duration,
};

use ::http::{Request, request::Parts};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_core::telemetry::EffectiveTelemetry;
use tokio::{
    io::AsyncWriteExt as _,
    task::spawn_local,
    time::{Instant, sleep},
};

use super::{
    Arrival,
    flow::{Flow, StreamExecutor},
    parting::{Parting, part},
    pulse::{ClientGuard, Pulse, PulsedStream, Verdict, Watch},
};
use crate::{
    duplex::{Duplex, Prefixed},
    exchange::{self, Other},
    gather::gathered,
    telemetry::{self, BadInput, RequestSpan, Sender},
    worker::Worker,
};

/// Bytes of a request's head. Envoy's default is 60 KiB.
const MAX_HEAD: usize = 64 << 10;
/// Requests under way on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// Streams that a client may reset before they were looked at (RFC 9113, section 10.5; CVE-2023-44487).
const MAX_RESET: usize = 50;
/// Bytes that one HTTP/2 stream may have under way to us.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same for all streams of a connection, at most and at least. With the most, 64 of them may leave all of theirs untaken
/// before the others have to wait; who lets that many wait waits for itself alone.
const CONNECTION_WINDOWS: (u32, u32) = (1 << 20, 16 << 20);
/// What the connections of one thread share of that: the more there are, the less a further one gets, so that many clients whose
/// bodies nobody takes cannot have us hold more than few of them.
const WINDOWS_TOGETHER: u32 = 32 << 20;
/// Bytes of responses that may wait on an HTTP/2 stream.
const MAX_SEND: usize = 256 << 10;
/// How often a silent HTTP/2 client is asked whether it is there, and how long it may stay silent.
const PING: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// What the requests of one client's connection share.
pub(crate) struct Connection {
    /// This thread.
    pub(crate) worker: Rc<Worker>,
    /// What the tunnel is for.
    pub(crate) arrival: Rc<Arrival>,
    /// Set where an HTTP/1.1 connection becomes something else after the response.
    other: RefCell<Option<Other>>,
    /// No request has come yet.
    fresh: Cell<bool>,
    /// No further request shall come.
    parting: Cell<bool>,
    pulse: Rc<Pulse>,
    _counted: ClientGuard,
}

impl Connection {
    fn new(worker: Rc<Worker>, arrival: Arrival, pulse: &Rc<Pulse>) -> Rc<Self> {
        let (other, fresh, pulse, arrival) = (RefCell::default(), Cell::new(true), pulse.clone(), Rc::new(arrival));
        Rc::new(Self {
            _counted: ClientGuard::one(&worker),
            worker,
            arrival,
            other,
            fresh,
            parting: Cell::new(false),
            pulse,
        })
    }

    /// Whether the client is to be told that no further request shall come.
    pub(crate) fn is_parting(&self) -> bool {
        self.parting.get() && self.other.borrow().is_none()
    }

    /// A request begins.
    pub(crate) fn begin(&self) -> Rc<Flow> {
        self.pulse.begin()
    }

    /// What is told of its requests.
    pub(crate) fn told(&self) -> Rc<EffectiveTelemetry> {
        telemetry::told(&self.worker, &self.arrival)
    }

    /// Begins a request's span, where it has one. The first request belongs to the trace of the tunnel, unless it has its own.
    pub(crate) fn begin_span(
        &self,
        told: &EffectiveTelemetry,
        arrival: &Arrival,
        request: &mut Parts,
    ) -> Option<Rc<RequestSpan>> {
        let shared = &self.worker.shared;
        let named = told.tracing.provider.as_ref().and_then(|provider| shared.exports.tracer(provider));
        let tracer = named.or_else(|| shared.tracer.clone())?;
        RequestSpan::begin(&tracer, &told.tracing, arrival, self.fresh.replace(false), request)
    }

    /// After this response the connection is no longer HTTP's.
    pub(crate) fn upgrade_to(&self, other: Other) {
        self.other.replace(Some(other));
    }

    /// Resolves when no more requests shall begin.
    async fn draining(&self) {
        let mut draining = self.worker.shared.draining.subscribe();
        // A sender that is gone means that nobody will ever drain.
        if draining.wait_for(|draining| *draining).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The end of a connection, however it comes to that: what it should have become refers to it, and would keep it for ever.
struct Ending(Rc<Connection>);

impl Drop for Ending {
    fn drop(&mut self) {
        drop(self.0.other.take());
    }
}

/// Serves a client of HTTP/1.
pub(super) async fn serve_http1(worker: Rc<Worker>, arrival: Arrival, stream: Prefixed<impl Duplex + 'static>) {
    let pulse = Rc::<Pulse>::default();
    let connection = Connection::new(worker, arrival, &pulse);
    let _ending = Ending(connection.clone());
    let stream = TokioIo::new(PulsedStream { stream, pulse: pulse.clone() });
    let service = service_fn(|request: Request<Incoming>| {
        let connection = connection.clone();
        Box::pin(async move { Ok::<_, Infallible>(exchange::serve(connection, request).await) })
    });
    let mut served = http1::Builder::new().max_buf_size(MAX_HEAD).serve_connection(stream, service);
    let mut draining = pin!(connection.draining());
    let mut idle = pin!(sleep(Duration::ZERO));
    let mut watch = Watch::new(&connection.worker, &pulse);
    let mut drained = false;
    let ended = loop {
        tokio::select! {
            ended = poll_fn(|cx| served.poll_without_shutdown(cx)) => break ended,
            // To end it at once would lose the request that is on its way: the client hears of it by the next answer.
            () = &mut draining, if !connection.parting.get() => {
                connection.parting.set(true);
                idle.as_mut().reset(Instant::now() + connection.worker.shared.lame_duck);
            }
            () = &mut idle, if connection.parting.get() && !drained => {
                drained = true;
                std::pin::Pin::new(&mut served).graceful_shutdown();
            }
            verdict = watch.verdict() => match verdict {
                // There is one request at a time, and none where it is idle.
                Verdict::Retire | Verdict::End => return,
            },
        }
    };
    match (ended, connection.other.take()) {
        (Ok(()), Some(other)) => {
            let parts = served.into_parts();
            other.carry(&connection.worker, Prefixed::new(parts.read_buf, parts.io.into_inner())).await;
        }
        (Ok(()), None) => {
            part(served.into_parts().io.into_inner()).await;
        }
        (Err(error), _) => {
            tracing::debug!(%error, "client's connection ended");
            connection.worker.shared.telemetry.bad_inputs.count_error(Sender::Client, &error);
            if error.is_parse() {
                // The answer that says so is on its way already; a reset would overtake it.
                part(served.into_parts().io.into_inner()).await;
            }
        }
    }
}

/// Serves a client of HTTP/2.
pub(super) async fn serve_http2(worker: Rc<Worker>, arrival: Arrival, stream: Prefixed<impl Duplex + 'static>) {
    let pulse = Rc::<Pulse>::default();
    let connection = Connection::new(worker, arrival, &pulse);
    let service = service_fn(|request: Request<Incoming>| {
        let connection = connection.clone();
        // hyper, h2 and the runtime move it about before it begins.
        Box::pin(async move { Ok::<_, Infallible>(exchange::serve(connection, request).await) })
    });
    let head = u32::try_from(MAX_HEAD).unwrap_or(u32::MAX);
    let (stream, sending) = gathered(PulsedStream { stream: Parting::of(stream), pulse: pulse.clone() });
    let served = http2::Builder::new(StreamExecutor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(head)
        .max_pending_accept_reset_streams(MAX_RESET)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(connection.worker.clients.get()))
        .max_send_buf_size(MAX_SEND)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let mut draining = pin!(connection.draining());
    let mut watch = Watch::new(&connection.worker, &pulse);
    let mut drained = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut served => {
                if let Err(error) = ended {
                    connection.worker.shared.telemetry.bad_inputs.count_error(Sender::Client, &error);
                    tracing::debug!(%error, "client's connection ended");
                }
                return;
            }
            // After it: what it has written goes out.
            error = poll_fn(|cx| sending.poll(cx)) => {
                tracing::debug!(%error, "client's connection ended");
                return;
            }
            () = &mut draining, if !drained => {
                drained = true;
                served.as_mut().graceful_shutdown();
            }
            verdict = watch.verdict() => match verdict {
                Verdict::Retire => served.as_mut().graceful_shutdown(),
                Verdict::End => return,
            },
        }
    }
}

/// Tells a client that its first frame is not what HTTP/2 begins with (RFC 9113, section 3.4): empty SETTINGS, and GOAWAY.
pub(super) async fn refuse_http2(worker: &Worker, mut stream: impl Duplex) {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PROTOCOL_ERROR: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    worker.shared.telemetry.bad_inputs.count(Sender::Client, BadInput::Http2);
    if stream.write_all(&[&SETTINGS[..], &PROTOCOL_ERROR].concat()).await.is_ok() {
        part(stream).await;
    }
}

/// Answers a header of the PROXY protocol where nobody has asked for one: whom it names is nobody's to believe.
pub(super) async fn refuse_proxied(worker: &Worker, arrival: &Arrival, mut stream: impl Duplex) {
    const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    worker.shared.telemetry.bad_inputs.count(Sender::Client, BadInput::ProxyProtocol);
    tracing::info!(
        target: "access", client = %arrival.client.peer, port = arrival.target.port(),
        "connection refused: a header of the PROXY protocol came, and nobody has asked for one (gatewayTopology.proxyProtocol)"
    );
    if stream.write_all(ANSWER).await.is_ok() {
        part(stream).await;
    }
}

/// Runs what HTTP/2 spawns on this thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}

/// The window of a connection that makes it so many on its thread.
fn connection_window(clients: usize) -> u32 {
    let clients = u32::try_from(clients.max(1)).unwrap_or(u32::MAX);
    let (least, most) = CONNECTION_WINDOWS;
    (WINDOWS_TOGETHER / clients).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_connections_there_are_the_less_a_further_one_may_have_under_way() {
        for (clients, window) in [
            (0, 16 << 20),
            (1, 16 << 20),
            (2, 16 << 20),
            (8, 4 << 20),
            (32, 1 << 20),
            (16_384, 1 << 20),
            (usize::MAX, 1 << 20),
        ] {
            assert_eq!(connection_window(clients), window, "{clients}");
        }
    }
}
