//! A thread's HTTP connections to one endpoint: kept for the next request, or shared by many.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{TrySendError, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_core::l7::TrafficPolicy;
use tokio::{sync::Mutex, task::spawn_local, time::timeout};

use super::{
    UpstreamError,
    connect::{Dial, Stream, connect_within},
    greeting::{Greeted, Greeting, greeted},
    http1::Http1Line,
    open::{LookedAfter, Open},
    paced::Paced,
    reach::{Look, SILENCE_OF_SHARED},
    state::{ClusterState, Count, EndpointState},
    untaken::{SharedBody, Untaken},
};
use crate::{
    exchange::RequestBody,
    gather::{Gathered, Within, gathered},
    inbound::LocalExecutor,
    worker::Worker,
};

/// Connections without a request that are kept for one endpoint.
const MAX_IDLE: usize = 1024;
/// How long a connection without a request is kept where nothing is said.
const IDLE: Duration = Duration::from_secs(300);
/// Requests that share an HTTP/2 connection before there is another one.
const STREAMS: u32 = 100;
/// Bytes of a response's head.
const MAX_HEAD: usize = 64 << 10;
/// Connections to an endpoint beyond which no further one is made because the endpoint leaves bodies untaken on those that are there.
const MOST_FOR_UNTAKEN: usize = 8;
/// Bytes that one HTTP/2 stream of an endpoint may have under way to us.
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;
/// The same for all streams of a connection: what clients do not take of their responses is no other's to wait for.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;
/// How long an endpoint's settings are waited for.
const SETTINGS: Duration = Duration::from_secs(5);

/// Which HTTP a request goes on by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// One endpoint's connections.
pub(crate) struct Lines {
    endpoint: Arc<EndpointState>,
    /// Of how many of the endpoint's losses this thread has heard.
    losses: Cell<u32>,
    idle: RefCell<Vec<Http1Line>>,
    shared: RefCell<Vec<Rc<Http2Line>>>,
    dialling: Mutex<()>,
    /// All that are open, whoever has them.
    open: Open,
}

/// What a request asks of an HTTP/2 connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Room for it.
    Any,
    /// One whose endpoint takes bodies now.
    Upload,
}

type Connections = Count<ClusterState>;

/// An HTTP/2 connection; many requests share it.
pub(crate) struct Http2Line {
    sender: http2::SendRequest<SharedBody>,
    greeting: Rc<Greeting>,
    /// None once it has ended: what waits in it fails then.
    connection: Rc<RefCell<Option<Http2Connection>>>,
    active: Cell<u32>,
    untaken: Untaken,
    served: Cell<u32>,
    opened: Instant,
    used: Cell<Instant>,
    look: Cell<Look>,
    stream: Within<Stream>,
    _counted: Connections,
}

type Http2Connection = http2::Connection<TokioIo<Greeted<Paced<Gathered<Stream>>>>, SharedBody, LocalExecutor>;

impl LookedAfter for Http2Line {
    fn is_lost(&self, now: Instant) -> bool {
        let mut look = match self.look.get() {
            // Others have begun since.
            Look::Heard => Look::Unseen,
            look => look,
        };
        let has_requests = self.active.get() > 0;
        let unheard_for = || self.stream.look(Stream::unheard_for)?;
        let is_lost = has_requests && look.again(now, SILENCE_OF_SHARED, unheard_for);
        self.look.set(if has_requests { look } else { Look::Unseen });
        is_lost
    }

    fn give_up(&self) {
        self.stream.look(Stream::break_off);
    }
}

/// A request on an HTTP/2 connection, until it is dropped.
pub(crate) struct Http2Place(pub(crate) Rc<Http2Line>);

impl Drop for Http2Place {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.used.set(Instant::now());
    }
}

/// Whether a connection is one client's alone: it begins by saying whose it is.
const fn is_of_one_client(policy: &TrafficPolicy) -> bool {
    policy.proxy_protocol.is_some()
}

/// Whether a connection that was opened then is as old as it may become.
fn is_aged(opened: Instant, policy: &TrafficPolicy) -> bool {
    let oldest = policy.pool.as_ref().and_then(|pool| pool.max_connection_duration);
    oldest.is_some_and(|oldest| opened.elapsed() >= oldest)
}

impl Lines {
    /// None yet to an endpoint.
    pub(super) fn to(endpoint: Arc<EndpointState>) -> Self {
        Self {
            losses: Cell::new(endpoint.losses()),
            endpoint,
            idle: RefCell::default(),
            shared: RefCell::default(),
            dialling: Mutex::default(),
            open: Open::default(),
        }
    }

    /// Lets go of what was connected before some thread found that such connections lead nowhere; true where there was something.
    pub(super) fn let_go_of_lost(&self) -> bool {
        let losses = self.endpoint.losses();
        if self.losses.replace(losses) == losses {
            return false;
        }
        self.idle.borrow_mut().clear();
        // Who has a request on one holds it until that has ended.
        self.shared.borrow_mut().clear();
        true
    }

    /// Looks after the connections that have requests. Those of which the endpoint's machine acknowledges nothing are given up where
    /// `may_give_up`; true where there was one.
    pub(super) fn look(&self, now: Instant, may_give_up: impl FnOnce() -> bool) -> bool {
        self.open.look(now, may_give_up)
    }

    /// A connection that waits for a request, if there is one.
    pub(crate) fn take_http1(&self, policy: &TrafficPolicy) -> Option<Http1Line> {
        self.let_go_of_lost();
        loop {
            let line = self.idle.borrow_mut().pop()?;
            if is_aged(line.opened, policy) || is_of_one_client(policy) {
                line.part();
            } else if line.is_silent() {
                return Some(line);
            }
        }
    }

    /// Keeps a connection for the next request, unless it has served enough.
    pub(crate) fn give_back(&self, mut line: Http1Line, policy: &TrafficPolicy) {
        line.served += 1;
        let most = policy.pool.as_ref().and_then(|pool| pool.max_requests_per_connection);
        let spent = most.is_some_and(|most| most > 0 && line.served >= most)
            || is_aged(line.opened, policy)
            || is_of_one_client(policy);
        let mut idle = self.idle.borrow_mut();
        if !spent && line.is_over() && idle.len() < MAX_IDLE {
            line.used = Instant::now();
            idle.push(line);
        } else {
            line.part();
        }
    }

    /// A place on a connection that has room, if there is one. Where there may be another connection, one on which bodies wait
    /// has none for a request with a body.
    pub(crate) fn take_http2(&self, policy: &TrafficPolicy, needs: Needs) -> Option<Http2Place> {
        self.let_go_of_lost();
        let most = policy.pool.as_ref().and_then(|pool| pool.max_requests_per_connection).filter(|most| *most > 0);
        let mut shared = self.shared.borrow_mut();
        // Requests that are on one that goes hold it until they have ended.
        shared.retain(|line| {
            let spent = most.is_some_and(|most| line.served.get() >= most)
                || is_aged(line.opened, policy)
                || is_of_one_client(policy);
            !line.sender.is_closed() && !spent
        });
        let streams = policy.pool.as_ref().and_then(|pool| pool.max_streams).unwrap_or(STREAMS).min(STREAMS);
        let has_room = |line: &&Rc<Http2Line>| line.active.get() < streams;
        if needs == Needs::Any {
            return shared.iter().find(has_room).map(Http2Line::place);
        }
        let takes_bodies = shared.iter().find(|line| has_room(line) && line.untaken.is_none());
        let may_wait = shared.len() >= MOST_FOR_UNTAKEN;
        takes_bodies.or_else(|| shared.iter().find(has_room).filter(|_| may_wait)).map(Http2Line::place)
    }

    /// Closes what nobody has used for long, and what is too old once nobody uses it.
    pub(super) fn sweep(&self, policy: &TrafficPolicy) {
        let limit = policy.pool.as_ref().and_then(|pool| pool.idle_timeout).unwrap_or(IDLE);
        let is_over =
            |line: &mut Http1Line| line.used.elapsed() >= limit || is_aged(line.opened, policy) || !line.is_silent();
        self.idle.borrow_mut().extract_if(.., is_over).for_each(Http1Line::part);
        self.shared.borrow_mut().retain(|line| {
            let in_use = line.active.get() > 0 || line.used.get().elapsed() < limit;
            in_use && !is_aged(line.opened, policy) && !line.sender.is_closed()
        });
    }
}

impl Http2Line {
    /// Whether a stream of it may be another protocol's: it says so in its settings, and until they have come nobody knows.
    pub(crate) async fn takes_protocols(&self) -> bool {
        // What does not come is no wait for ever.
        let _ = timeout(SETTINGS, self.greeting.over()).await;
        let connection = self.connection.borrow();
        connection.as_ref().is_some_and(Http2Connection::is_extended_connect_protocol_enabled)
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<SharedBody>>> {
        let shared = request.map(|body| SharedBody::new(body, self.untaken.clone()));
        self.sender.clone().try_send_request(shared).await
    }

    fn place(self: &Rc<Self>) -> Http2Place {
        self.active.set(self.active.get() + 1);
        self.served.set(self.served.get() + 1);
        Http2Place(self.clone())
    }
}

/// Connects an endpoint for one request at a time.
///
/// # Errors
/// It cannot be connected.
pub(crate) async fn dial_http1(
    worker: &Rc<Worker>,
    dial: Dial<'_>,
    counted: Connections,
) -> Result<Http1Line, UpstreamError> {
    let stream = connect_within(worker, dial).await?;
    let line = Http1Line::new(stream, counted);
    dial.endpoint.lines.open.add(line.looked_after());
    Ok(line)
}

/// A place on an HTTP/2 connection to an endpoint, perhaps a new one; who comes meanwhile waits for the same.
///
/// # Errors
/// It cannot be connected.
pub(crate) async fn dial_http2(
    worker: &Rc<Worker>,
    dial: Dial<'_>,
    (counted, needs): (Connections, Needs),
) -> Result<Http2Place, UpstreamError> {
    let Dial { cluster, endpoint, policy, .. } = dial;
    let unanswered = endpoint.state.unanswered();
    let _one = endpoint.lines.dialling.lock().await;
    if let Some(place) = endpoint.lines.take_http2(policy, needs) {
        return Ok(place);
    }
    // Whoever dialled meanwhile has waited for all.
    if endpoint.state.unanswered() != unanswered && cluster.has_another(endpoint, dial.avoid) {
        return Err(UpstreamError::Unanswered(endpoint.address()));
    }
    let stream = connect_within(worker, dial).await?;
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20));
    let greeting = Rc::<Greeting>::default();
    let (stream, sending) = gathered(stream);
    let within = stream.within();
    spawn_local(sending.run());
    let stream = greeted(Paced::new(stream), greeting.clone());
    let handshake = builder.handshake::<_, SharedBody>(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| UpstreamError::Connect(error.to_string()))?;
    let connection = Rc::new(RefCell::new(Some(connection)));
    spawn_local(drive(connection.clone()));
    let opened = Instant::now();
    let line = Rc::new(Http2Line {
        sender,
        greeting,
        connection,
        active: Cell::new(0),
        untaken: Untaken::default(),
        served: Cell::new(0),
        opened,
        used: Cell::new(opened),
        look: Cell::default(),
        stream: within,
        _counted: counted,
    });
    let looked_after: Weak<Http2Line> = Rc::downgrade(&line);
    endpoint.lines.open.add(looked_after);
    endpoint.lines.shared.borrow_mut().push(line.clone());
    Ok(line.place())
}

/// Drives a connection until its end.
async fn drive(driven: Rc<RefCell<Option<Http2Connection>>>) {
    let ended = poll_fn(|cx| match driven.borrow_mut().as_mut() {
        Some(connection) => Pin::new(connection).poll(cx),
        None => Poll::Ready(Ok(())),
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "endpoint's connection ended");
    }
    let over = driven.borrow_mut().take();
    drop(over);
}
