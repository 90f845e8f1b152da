//! A client's node and a server's node in one thread: listener, pool, relays, and the applications' own ends.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use mesh_core::{SpiffeId, TrustDomain, WorkloadUid};
use mesh_transport::hbone::{
    Authority, ConnectError, ConnectRequest, Pool, PoolKey, ServeError, Server, Tunnel, TunnelEnd, TunnelRequest,
    TunnelStream,
};
use mesh_transport::{
    Carriers, CertificateAuthority, Identities, IdentitySettings, Limits, LocalAuthority, Outcome, RejectReason,
    RelayCounters, TlsIdentity, relay,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

/// Far above what any step takes; a test that hangs fails here.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test with every carrier of tunnels.
pub(crate) fn run(test: impl AsyncFn(Carriers)) {
    for carriers in [Carriers::H2, Carriers::DirectOrH2] {
        run_once(async || {
            eprintln!("with {carriers:?}");
            test(carriers).await;
        });
    }
}

/// Runs a test on a current-thread runtime, as a worker of the node does.
pub(crate) fn run_once(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(PATIENCE, test()).await.expect("the test hangs");
    });
}

pub(crate) fn identity(account: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::default(), "shop", account).expect("valid")
}

pub(crate) fn identities(authority: CertificateAuthority, carriers: Carriers) -> Rc<Identities> {
    identities_of(Arc::new(LocalAuthority::fixed(authority).expect("usable")), carriers)
}

pub(crate) fn identities_of(authority: Arc<LocalAuthority>, carriers: Carriers) -> Rc<Identities> {
    // A change of the signer is followed within a twentieth of a certificate's life.
    let lifetime = Duration::from_secs(20);
    let settings = IdentitySettings { carriers, lifetime, ..IdentitySettings::new(TrustDomain::default()) };
    Rc::new(Identities::new(authority, settings))
}

/// What the server's handler does with a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Connect,
    Refuse(StatusCode),
    /// Takes part itself, as a waypoint does: sends what comes back.
    Echo,
}

/// Everything the two nodes share.
pub(crate) struct World {
    pub(crate) identities: Rc<Identities>,
    pub(crate) pool: Pool,
    pub(crate) mesh: SocketAddr,
    pub(crate) server: ServerNode,
    backend: TcpListener,
    dials: Cell<usize>,
}

/// The server's node.
#[derive(Clone)]
pub(crate) struct ServerNode {
    pub(crate) drain: Rc<watch::Sender<bool>>,
    pub(crate) policy: Rc<Cell<Policy>>,
    /// Requests as they came.
    pub(crate) seen: Rc<RefCell<Vec<Seen>>>,
    pub(crate) rejects: Rc<RefCell<Vec<RejectReason>>>,
    pub(crate) results: Rc<RefCell<Vec<Result<(), ServeError>>>>,
    pub(crate) outcomes: Rc<RefCell<Vec<Outcome>>>,
    /// One per accepted connection; aborting cuts it.
    pub(crate) connections: Rc<RefCell<Vec<JoinHandle<()>>>>,
    pub(crate) changed: Rc<tokio::sync::Notify>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) peer: SpiffeId,
    pub(crate) authority: Authority,
    pub(crate) forwarded: Option<SocketAddr>,
    pub(crate) baggage: Option<String>,
    pub(crate) traceparent: Option<String>,
}

/// What the server's node shows.
#[derive(Clone)]
enum Shown {
    Always(Arc<TlsIdentity>),
    /// What is current when a connection comes.
    Current(Rc<Identities>, SpiffeId),
}

impl Shown {
    async fn fetch(&self) -> Arc<TlsIdentity> {
        match self {
            Self::Always(tls) => tls.clone(),
            Self::Current(identities, identity) => identities.fetch(identity).await.expect("identity"),
        }
    }
}

/// One application connection through the mesh.
pub(crate) struct Connection {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
    /// The client node's relay.
    pub(crate) relay: JoinHandle<Outcome>,
    pub(crate) counters: Rc<RelayCounters>,
}

impl World {
    pub(crate) async fn new(carriers: Carriers) -> Self {
        Self::with(carriers, Limits::default()).await
    }

    pub(crate) async fn with(carriers: Carriers, limits: Limits) -> Self {
        let authority = CertificateAuthority::generate(&TrustDomain::default(), SystemTime::now());
        let identities = identities(authority.expect("authority"), carriers);
        let tls = identities.fetch(&identity("pay")).await.expect("identity");
        Self::serving(limits, identities, tls).await
    }

    /// With clients of `identities` and a server that shows `tls`.
    pub(crate) async fn serving(limits: Limits, identities: Rc<Identities>, tls: Arc<TlsIdentity>) -> Self {
        let listener = listen().await;
        let mesh = listener.local_addr().expect("address");
        // A server with a certificate of its own also has its own word on whom to trust.
        let (shown, trust) = if Arc::ptr_eq(tls.peers(), &identities.trust().borrow()) {
            (Shown::Current(identities.clone(), tls.identity.clone()), identities.trust())
        } else {
            let trust = watch::channel(tls.peers().clone()).1;
            (Shown::Always(tls), trust)
        };
        let server = ServerNode::start(listener, shown, Server::new(limits.clone(), trust));
        let pool = Pool::new(limits, identities.trust());
        spawn_local({
            let pool = pool.clone();
            async move { pool.watch_peers().await }
        });
        Self { identities, pool, mesh, server, backend: listen().await, dials: Cell::new(0) }
    }

    pub(crate) fn key(&self) -> PoolKey {
        PoolKey {
            source: WorkloadUid::from("uid-cart"),
            identity: identity("cart"),
            peer: self.mesh,
            expected: identity("pay"),
        }
    }

    pub(crate) fn request(&self) -> TunnelRequest {
        TunnelRequest {
            authority: self.backend.local_addr().expect("address").into(),
            forwarded: Some("10.1.0.5:4321".parse().expect("valid")),
            baggage: Some("k8s.pod.name=cart-1".to_owned()),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        }
    }

    pub(crate) async fn tunnel(&self) -> Result<Tunnel, ConnectError> {
        self.tunnel_with(self.key(), self.request()).await
    }

    pub(crate) async fn tunnel_with(&self, key: PoolKey, request: TunnelRequest) -> Result<Tunnel, ConnectError> {
        let tls = self.identities.fetch(&key.identity).await.expect("identity");
        self.tunnel_as(&tls, key, request).await
    }

    pub(crate) async fn tunnel_as(
        &self,
        tls: &TlsIdentity,
        key: PoolKey,
        request: TunnelRequest,
    ) -> Result<Tunnel, ConnectError> {
        let peer = key.peer;
        self.pool
            .connect(key, tls, request, async || {
                self.dials.set(self.dials.get() + 1);
                TcpStream::connect(peer).await
            })
            .await
    }

    /// How often the pool dialled.
    pub(crate) fn dials(&self) -> usize {
        self.dials.get()
    }

    /// The server application's end of the next connection.
    pub(crate) async fn accept(&self) -> TcpStream {
        self.backend.accept().await.expect("accept").0
    }

    /// A client application connected through both nodes to a server application.
    pub(crate) async fn connect(&self) -> Connection {
        let (tunnel, server) = tokio::join!(self.tunnel(), self.accept());
        let (client, app) = socket_pair().await;
        let counters = Rc::new(RelayCounters::default());
        let counted = counters.clone();
        let tunnel = tunnel.expect("tunnel");
        let relay = spawn_local(async move { relay(app, tunnel, &counted).await });
        Connection { client, server, relay, counters }
    }
}

impl ServerNode {
    fn start(listener: TcpListener, shown: Shown, server: Server) -> Self {
        let node = Self {
            drain: Rc::new(watch::Sender::new(false)),
            policy: Rc::new(Cell::new(Policy::Connect)),
            seen: Rc::default(),
            rejects: Rc::default(),
            results: Rc::default(),
            outcomes: Rc::default(),
            connections: Rc::default(),
            changed: Rc::default(),
        };
        let accepting = node.clone();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, shown, node) = (server.clone(), shown.clone(), accepting.clone());
                let connection = spawn_local(async move {
                    let tls = shown.fetch().await;
                    let handling = node.clone();
                    let handler = move |request| handling.clone().handle(request);
                    let rejects = node.rejects.clone();
                    let drain = node.drain.subscribe();
                    let result = server
                        .serve(stream, &tls, drain, never, handler, |reason| rejects.borrow_mut().push(reason))
                        .await;
                    node.results.borrow_mut().push(result);
                    node.changed.notify_waiters();
                });
                accepting.connections.borrow_mut().push(connection);
            }
        });
        node
    }

    async fn handle(self, request: ConnectRequest) {
        self.seen.borrow_mut().push(Seen {
            peer: request.peer.clone(),
            authority: request.authority.clone(),
            forwarded: request.forwarded,
            baggage: request.baggage.clone(),
            traceparent: request.traceparent.clone(),
        });
        match self.policy.get() {
            Policy::Connect => {}
            Policy::Refuse(status) => return request.refuse(status).await,
            Policy::Echo => return echo(request).await,
        }
        match TcpStream::connect(request.authority.address().expect("an address")).await {
            Ok(app) => {
                if let Ok(tunnel) = request.accept().await {
                    let outcome = relay(app, tunnel, &RelayCounters::default()).await;
                    self.outcomes.borrow_mut().push(outcome);
                    self.changed.notify_waiters();
                }
            }
            Err(_) => request.refuse(StatusCode::SERVICE_UNAVAILABLE).await,
        }
    }

    /// Why the first connection that ended was turned away.
    pub(crate) async fn first_rejection(&self) -> Option<RejectReason> {
        self.until(|node| !node.results.borrow().is_empty()).await;
        self.results.borrow()[0].as_ref().err().and_then(ServeError::reason)
    }

    /// Waits until `what` holds; checked whenever something ended.
    pub(crate) async fn until(&self, what: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if what(self) {
                return;
            }
            changed.await;
        }
    }
}

/// Sends what comes back, and ends when that does.
async fn echo(request: ConnectRequest) {
    let Ok(tunnel) = request.accept().await else { return };
    let (mut from, mut to) = tokio::io::split(TunnelStream::from(tunnel));
    if tokio::io::copy(&mut from, &mut to).await.is_ok() {
        let _ = to.shutdown().await;
    }
}

/// A host that ends no connection by itself.
async fn never(_: &SpiffeId) -> TunnelEnd {
    std::future::pending().await
}

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("listen")
}

/// Both ends of a TCP connection.
pub(crate) async fn socket_pair() -> (TcpStream, TcpStream) {
    let listener = listen().await;
    let address = listener.local_addr().expect("address");
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("connect"), server.expect("accept").0)
}

/// Closes a socket so that its peer sees a reset.
pub(crate) fn reset(stream: TcpStream) {
    stream.set_zero_linger().expect("linger");
    drop(stream);
}

pub(crate) fn is_reset(result: &io::Result<usize>) -> bool {
    matches!(result, Err(e) if e.kind() == io::ErrorKind::ConnectionReset)
}
