//! Everything that the pool has for one key: HTTP/2 connections in use, and direct ones that wait for their next tunnel.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, spawn_local, yield_now};
use tokio::time::timeout;

use crate::direct::{
    Closing, DirectTunnel, Frame, Home, TunnelEnd, TunnelError, encode_request, parse_status, receive, send,
};
use crate::hbone::client::{Link, OpenError, Target};
use crate::hbone::connect_error::ConnectError;
use crate::hbone::pool::{Pool, PoolKey};
use crate::hbone::request::TunnelRequest;
use crate::hbone::tunnel::{Place, Places, Tunnel};
use crate::limits::Limits;
use crate::record::RecordError;
use crate::session::{PeerChain, Session, unheard};
use crate::socket::{has_input, poll_readable, write_now};
use crate::tls::TlsIdentity;
use crate::trust::PeerVerifier;
use crate::verify::VerifyError;

/// One key's connections.
#[derive(Default)]
pub(super) struct Lane {
    pub(super) links: RefCell<Vec<Rc<Link>>>,
    parked: RefCell<Vec<Parked>>,
    /// One dial at a time while HTTP/2 may come of it; those who wait share its result.
    pub(super) dialling: Mutex<()>,
    /// The peer takes direct tunnels, so that waiting for another's dial is no use while there may be more of them.
    pub(super) is_direct: Cell<bool>,
    /// Direct tunnels, open or being opened.
    direct: Places,
    pub(super) failures: Cell<u64>,
    pub(super) last_failure: RefCell<Option<ConnectError>>,
    /// Direct connections that are asked for a tunnel or carry one.
    open: RefCell<Vec<Weak<OpenDirect>>>,
    /// The source's pod has left.
    pub(super) is_closed: Cell<bool>,
}

/// A direct connection out of the pool, for as long as its [`Berth`] lives.
struct OpenDirect {
    chain: Option<Arc<PeerChain>>,
    closing: Rc<Closing>,
}

/// A direct connection without a tunnel, and the task that watches it.
struct Parked {
    session: Rc<RefCell<Option<Box<Session>>>>,
    generation: u64,
    watch: AbortHandle,
}

impl Lane {
    /// The HTTP/2 connection with the most tunnels that still has room, so that the others may fall idle.
    pub(super) fn pick(&self, tls: &TlsIdentity, limits: &Limits) -> Option<Rc<Link>> {
        let (links, now) = (self.links.borrow(), SystemTime::now());
        let usable = links.iter().filter(|link| {
            // After a renewal, or a change in whom to trust, new tunnels go over new connections.
            let current = link.generation == tls.generation;
            current
                && !has_ended(link.chain.as_ref(), now)
                && !link.retired.get()
                && link.active() < limits.streams_per_connection
        });
        usable.max_by_key(|link| link.active()).cloned()
    }

    /// The direct connection that was used last, if it is alive and of the current certificate.
    pub(super) fn take_parked(&self, tls: &TlsIdentity) -> Option<Box<Session>> {
        loop {
            let parked = self.parked.borrow_mut().pop()?;
            parked.watch.abort();
            let session = parked.session.take();
            if parked.generation == tls.generation
                && let Some(session) = session
                && !has_input(&session.socket)
                && !has_ended(session.peer.as_ref(), SystemTime::now())
            {
                return Some(session);
            }
        }
    }

    /// A place for one more direct tunnel, where the peer takes those and there are not enough of them.
    pub(super) fn place(&self, limits: &Limits) -> Option<Place> {
        self.may_be_direct(limits).then(|| self.direct.take())
    }

    /// Whether the next tunnel should have a connection to itself.
    pub(super) fn may_be_direct(&self, limits: &Limits) -> bool {
        self.is_direct.get() && self.direct.taken() < limits.direct_per_destination
    }

    /// The place of a direct tunnel that is made already.
    pub(super) fn occupy(&self) -> Place {
        self.direct.take()
    }

    /// Connections, in use or not. Direct tunnels that are open are not counted.
    pub(super) fn connections(&self) -> usize {
        self.links.borrow().len() + self.parked.borrow().len()
    }

    /// Ends the connections whose peers `judge` does not accept; their tunnels are reset.
    ///
    /// Verifying takes about a tenth of a millisecond each, so that others get their turn in between.
    pub(super) async fn rejudge(&self, judge: &PeerVerifier) {
        let links: Vec<_> = self.links.borrow().clone();
        for link in links {
            if let Some(error) = refused(judge, link.chain.as_ref()) {
                link.end(TunnelEnd::Untrusted(error));
            }
            yield_now().await;
        }
        let open: Vec<_> = self.open.borrow().iter().filter_map(Weak::upgrade).collect();
        for open in open {
            if let Some(error) = refused(judge, open.chain.as_ref()) {
                open.closing.end(TunnelEnd::Untrusted(error));
            }
            yield_now().await;
        }
        // What waits for its next tunnel is of an earlier generation now, and would never be used again.
        for parked in self.parked.borrow_mut().drain(..) {
            parked.watch.abort();
        }
    }

    fn register(&self, session: &Session) -> Rc<OpenDirect> {
        let new = Rc::new(OpenDirect { chain: session.peer.clone(), closing: Rc::default() });
        if self.is_closed.get() {
            new.closing.close();
        }
        let mut open = self.open.borrow_mut();
        if open.len() == open.capacity() {
            open.retain(|old| old.strong_count() > 0);
        }
        open.push(Rc::downgrade(&new));
        new
    }

    /// Ends everything: tunnels are reset.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.open.borrow_mut().drain(..).filter_map(|open| open.upgrade()).for_each(|open| open.closing.close());
        self.links.borrow().iter().for_each(|link| link.cut());
        for parked in self.parked.borrow_mut().drain(..) {
            parked.watch.abort();
        }
    }
}

fn has_ended(chain: Option<&Arc<PeerChain>>, now: SystemTime) -> bool {
    chain.is_some_and(|chain| chain.has_ended(now))
}

fn refused(judge: &PeerVerifier, chain: Option<&Arc<PeerChain>>) -> Option<VerifyError> {
    chain.and_then(|chain| chain.verify(judge).err())
}

/// A place in a lane, which keeps it in the pool. The last one to go takes an empty lane with it.
pub(crate) struct Berth {
    pub(super) pool: Pool,
    pub(super) key: PoolKey,
    pub(super) lane: Rc<Lane>,
    /// The certificate and trust bundle that the connection was made with.
    pub(super) generation: u64,
    open: Option<Rc<OpenDirect>>,
}

impl Drop for Berth {
    fn drop(&mut self) {
        self.pool.prune(&self.key, &self.lane);
    }
}

impl Berth {
    pub(super) fn new(pool: Pool, key: PoolKey, lane: Rc<Lane>, generation: u64) -> Self {
        Self { pool, key, lane, generation, open: None }
    }

    /// Asks for a tunnel over a direct connection, and waits for the answer.
    pub(super) async fn open(
        mut self,
        mut session: Box<Session>,
        place: Place,
        target: &Target<'_>,
        request: &TunnelRequest,
        limits: &Limits,
    ) -> Result<Tunnel, OpenError> {
        let (peer, limit) = (target.peer, limits.response_timeout);
        let open = self.lane.register(&session);
        self.open = Some(open.clone());
        self.pool.still_trusts(target, session.peer.as_ref()).map_err(OpenError::Settled)?;
        let unheard = unheard(session.socket.downgrade());
        let answer = tokio::select! {
            answer = timeout(limit, ask(&mut session, request)) => answer,
            // What was kept for the next tunnel may lead to where nobody is any more.
            () = unheard => Ok(Err(io::Error::from(io::ErrorKind::TimedOut).into())),
        };
        let status = match answer {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return Err(sort(target, error)),
            Err(_) => {
                let what = "the answer to CONNECT from";
                return Err(OpenError::Settled(ConnectError::TimedOut { what, peer, limit }));
            }
        };
        if status == StatusCode::OK {
            let closing = open.closing.clone();
            return Ok(Tunnel::Direct(DirectTunnel { session, closing, home: Home::Pool(Box::new(self), place) }));
        }
        self.park(session);
        Err(OpenError::Settled(ConnectError::Refused(status)))
    }

    /// Keeps a connection for the next tunnel, unless there are enough, or somebody said something out of turn.
    pub(crate) fn park(mut self, session: Box<Session>) {
        self.open = None;
        let limits = self.pool.limits();
        let enough = self.lane.parked.borrow().len() >= limits.idle_per_destination;
        if enough || self.lane.is_closed.get() || !session.input.is_empty() {
            return close(&session);
        }
        let session = Rc::new(RefCell::new(Some(session)));
        let (watched, lane) = (session.clone(), Rc::downgrade(&self.lane));
        let (pool, key, idle) = (self.pool.clone(), self.key.clone(), limits.idle_timeout);
        let watch = spawn_local(async move {
            // Whether its time is over or the peer closed it: it goes.
            let _ = timeout(idle, until_input(&watched)).await;
            if let Some(session) = watched.take() {
                close(&session);
            }
            forget(&pool, &key, &lane, &watched);
        });
        let watch = watch.abort_handle();
        self.lane.parked.borrow_mut().push(Parked { session, generation: self.generation, watch });
    }
}

fn forget(pool: &Pool, key: &PoolKey, lane: &Weak<Lane>, gone: &Rc<RefCell<Option<Box<Session>>>>) {
    if let Some(lane) = lane.upgrade() {
        lane.parked.borrow_mut().retain(|parked| !Rc::ptr_eq(&parked.session, gone));
        pool.prune(key, &lane);
    }
}

async fn until_input(session: &RefCell<Option<Box<Session>>>) {
    loop {
        let ready = poll_fn(|cx| match &*session.borrow() {
            Some(session) => poll_readable(&session.socket, cx),
            None => std::task::Poll::Ready(Ok(())),
        });
        let failed = ready.await.is_err();
        if failed || session.borrow().as_ref().is_none_or(|session| has_input(&session.socket)) {
            return;
        }
    }
}

/// Sends close_notify, if that does not block.
fn close(session: &Session) {
    if let Ok(record) = session.keys.borrow_mut().close_notify() {
        let _ = write_now(&session.socket, &[IoSlice::new(&record)]);
    }
}

async fn ask(session: &mut Session, request: &TunnelRequest) -> Result<StatusCode, TunnelError> {
    send(session, Frame::Request, &encode_request(request)).await?;
    match receive(session).await? {
        Some((Frame::Response, payload)) => parse_status(&payload),
        Some((other, _)) => Err(TunnelError::Frame(other as u8)),
        None => Err(TunnelError::Closed),
    }
}

/// A peer that has gone has not answered, and no application byte went out: another connection may be asked.
fn sort(target: &Target<'_>, error: TunnelError) -> OpenError {
    let peer = target.peer;
    match error {
        // A server judges our certificate after the handshake is over for us.
        TunnelError::Record(RecordError::Alert(alert)) => {
            let source = Arc::new(rustls::Error::AlertReceived(alert.into()));
            let expected = target.expected.clone();
            OpenError::Settled(ConnectError::Tls { peer, expected, source })
        }
        error if error.is_violation() => {
            OpenError::Settled(ConnectError::Broken { peer, source: Arc::new(error.into()) })
        }
        error => OpenError::Unprocessed(ConnectError::Broken { peer, source: Arc::new(error.into()) }),
    }
}
