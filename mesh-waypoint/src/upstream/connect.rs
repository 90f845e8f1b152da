//! A stream to an endpoint: in a tunnel where it is part of the mesh, else plain.

use std::{
    future::pending,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use mesh_core::{
    TraceContext, WorkloadUid,
    l7::{
        TrafficPolicy,
        traffic::{Keepalive, ProxyProtocol},
    },
};
use mesh_transport::{
    TlsStream as SessionStream, break_off,
    hbone::{ConnectError, PoolKey, TunnelRequest, TunnelStream},
    limits::DIAL_ANSWER,
    proxy_protocol::{self, Form},
    sidecar::{Content, SidecarTls},
    unheard_for,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Cluster, Endpoint, UpstreamError, Version, endpoint::MutualTls, origination::server_name};
use crate::worker::Worker;

/// How long a connection may take where nothing is said; Istio's default.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may take.
pub(crate) fn connect_timeout(policy: &TrafficPolicy) -> Duration {
    policy.pool.as_ref().and_then(|pool| pool.connect_timeout).unwrap_or(CONNECT_TIMEOUT)
}

/// A stream to an endpoint.
pub(crate) enum Stream {
    /// Through a tunnel.
    Tunnel(TunnelStream),
    /// With the endpoint's sidecar.
    Sidecar(Box<SessionStream>),
    /// As it is.
    Plain(TcpStream),
    /// With TLS that was begun here, in one of the others.
    Tls(Box<TlsStream<Stream>>),
}

/// A connection that is wanted.
#[derive(Clone, Copy)]
pub(crate) struct Dial<'a> {
    /// Where there may be others than the endpoint.
    pub(crate) cluster: &'a Cluster,
    pub(crate) endpoint: &'a Endpoint,
    /// Endpoints that whoever it is for was with already.
    pub(crate) avoid: &'a [SocketAddr],
    /// How it is connected.
    pub(crate) policy: &'a TrafficPolicy,
    /// Whose it is.
    pub(crate) behalf: &'a Behalf,
    /// The one version of HTTP that TLS offers, where it is begun here. Without one the connection is its client's alone, and the
    /// client's address is shown.
    pub(crate) version: Option<Version>,
}

/// On whose behalf a connection is made.
#[derive(Debug)]
pub(crate) struct Behalf {
    /// The client.
    pub(crate) client: Option<SocketAddr>,
    /// The address that the client has connected to.
    pub(crate) local: Option<SocketAddr>,
    /// The span that it is for.
    pub(crate) trace: Option<TraceContext>,
}

/// Connects an endpoint, says whose it is where the policy asks for that, and begins TLS where that is asked for.
async fn connect(worker: &Rc<Worker>, dial: Dial<'_>) -> Result<Stream, UpstreamError> {
    let Dial { endpoint, policy, behalf, version, .. } = dial;
    let address = endpoint.address();
    // First: where it cannot be begun, nobody is connected in vain.
    let begun = match endpoint.origination() {
        None => None,
        Some(origination) => {
            let namespace = &worker.shared.own.gateway.namespace;
            let held = |name: &Arc<str>| worker.snapshot().l7().origin_secret(namespace, name).cloned();
            let secret = origination.secret.as_ref().and_then(held);
            let config = worker.shared.originations.config(origination, version, secret).await;
            Some((origination, config.map_err(|error| failed(address, &error))?))
        }
    };
    let mut stream = reach(worker, dial).await?;
    if let Some(version) = policy.proxy_protocol {
        let form = if version == ProxyProtocol::V1 { Form::Text } else { Form::Binary };
        let header = proxy_protocol::header(form, behalf.client, behalf.local);
        stream.write_all(&header).await.map_err(|error| failed(address, &error))?;
    }
    let Some((origination, config)) = begun else { return Ok(stream) };
    let name = server_name(origination, address.ip()).map_err(|error| failed(address, &error))?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| failed(address, &error))?;
    if version == Some(Version::Http2) && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(UpstreamError::Connect(format!("{address} speaks no HTTP/2 by TLS")));
    }
    Ok(Stream::Tls(Box::new(stream)))
}

async fn reach(worker: &Rc<Worker>, dial: Dial<'_>) -> Result<Stream, UpstreamError> {
    let Dial { endpoint, behalf, version, .. } = dial;
    let (address, shared) = (endpoint.address(), &worker.shared);
    let own = async || shared.identities.fetch(&shared.identity).await.map_err(|error| failed(address, &error));
    let expected = match endpoint.mutual() {
        None => return plain(worker, dial).await.map(Stream::Plain),
        Some(MutualTls::Sidecar(expected)) => {
            let tls = own().await?;
            let stream = plain(worker, dial).await?;
            let sidecar = SidecarTls::connect(stream, &tls, (address, expected), content(version), &shared.limits);
            let sidecar = sidecar.await.map_err(|error| failed(address, &error))?;
            return Ok(Stream::Sidecar(Box::new(sidecar.into())));
        }
        Some(MutualTls::Tunnel(expected)) => expected,
    };
    let tls = own().await?;
    let peer = SocketAddr::new(address.ip(), worker.shared.tunnel_port);
    let key = PoolKey {
        source: WorkloadUid::from("waypoint"),
        identity: shared.identity.clone(),
        peer,
        expected: expected.clone(),
    };
    let traceparent = behalf.trace.map(|trace| trace.to_string());
    let forwarded = behalf.client.filter(|_| version.is_none());
    let request = TunnelRequest { authority: address.into(), forwarded, baggage: None, traceparent };
    let tunnel = worker.pool.connect(key, &tls, request, async || answered(worker, dial, peer).await).await;
    let tunnel = tunnel.map_err(|error| match &error {
        ConnectError::Dial { source, .. } if is_unanswered(source) => UpstreamError::Unanswered(address),
        _ => failed(address, &error),
    })?;
    // By a connection that was there, perhaps.
    endpoint.state.answered();
    Ok(Stream::Tunnel(tunnel.into()))
}

/// Connects an endpoint, or its node, by TCP. One that does not answer is left alone, and passed by, where there is another.
async fn answered(worker: &Worker, dial: Dial<'_>, to: SocketAddr) -> io::Result<TcpStream> {
    let Dial { cluster, endpoint, avoid, .. } = dial;
    let unanswered = async {
        sleep(DIAL_ANSWER).await;
        if !cluster.may_pass_by(endpoint, avoid) {
            pending::<()>().await;
        }
        cluster.pass_by(worker, endpoint);
    };
    tokio::select! {
        // First: a thread that was held up finds both.
        biased;
        connected = TcpStream::connect(to) => {
            // A refusal is an answer, too.
            let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
            if connected.as_ref().map_or_else(is_refused, |_| true) {
                endpoint.state.answered();
            }
            connected
        }
        () = unanswered => Err(io::Error::other(NoAnswer)),
    }
}

/// Why a dial was given up.
#[derive(Debug, thiserror::Error)]
#[error("no answer")]
struct NoAnswer;

fn is_unanswered(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|source| source.is::<NoAnswer>())
}

async fn plain(worker: &Worker, dial: Dial<'_>) -> Result<TcpStream, UpstreamError> {
    let (address, policy) = (dial.endpoint.address(), dial.policy);
    let stream = answered(worker, dial, address).await.map_err(|error| {
        if is_unanswered(&error) { UpstreamError::Unanswered(address) } else { failed(address, &error) }
    })?;
    // Failing costs latency, and nothing else.
    let _ = stream.set_nodelay(true);
    if let Some(keepalive) = policy.pool.as_ref().and_then(|pool| pool.keepalive) {
        keep_alive(&stream, keepalive);
    }
    Ok(stream)
}

/// What a sidecar is told of what comes.
const fn content(version: Option<Version>) -> Content {
    match version {
        None => Content::Bytes,
        Some(Version::Http1) => Content::Http1,
        Some(Version::Http2) => Content::Http2,
    }
}

/// Has the kernel probe a connection while it is silent. Tunnels need none of that: they have probes of their own.
fn keep_alive(stream: &TcpStream, keepalive: Keepalive) {
    let mut options = TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        options = options.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        options = options.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        options = options.with_retries(probes);
    }
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&options) {
        tracing::warn!(?keepalive, %error, "connections to an endpoint are not probed as the DestinationRule asks");
    }
}

/// Connects an endpoint within the policy's time, and begins TLS where that is asked for.
///
/// # Errors
/// It cannot be reached, is not who it should be, does not admit this waypoint, or the time is over.
pub(crate) async fn connect_within(worker: &Rc<Worker>, dial: Dial<'_>) -> Result<Stream, UpstreamError> {
    let connected = timeout(connect_timeout(dial.policy), connect(worker, dial)).await;
    connected.unwrap_or(Err(UpstreamError::ConnectTimeout))
}

fn failed(address: SocketAddr, error: &dyn std::error::Error) -> UpstreamError {
    UpstreamError::Connect(format!("{address}: {error}"))
}

impl Stream {
    /// For how long its peer's machine has acknowledged nothing, where it was asked again and again.
    pub(super) fn unheard_for(&self) -> Option<Duration> {
        self.look_at_socket(unheard_for)?
    }

    /// Whether others share its connection.
    pub(super) fn is_shared(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Sidecar(_) => false,
            Self::Tls(stream) => stream.get_ref().0.is_shared(),
            Self::Tunnel(stream) => matches!(stream, TunnelStream::H2(_)),
        }
    }

    /// Breaks its connection, which other streams of HTTP/2 may share: who reads or writes finds it broken.
    pub(super) fn break_off(&self) {
        self.look_at_socket(break_off);
    }

    fn look_at_socket<T>(&self, look: impl FnOnce(&TcpStream) -> T) -> Option<T> {
        match self {
            Self::Plain(stream) => Some(look(stream)),
            Self::Sidecar(stream) => Some(look(stream.socket())),
            Self::Tls(stream) => stream.get_ref().0.look_at_socket(look),
            Self::Tunnel(stream) => stream.look_at_socket(look),
        }
    }

    /// Makes a reset the end of the stream.
    pub(crate) fn reset(&self) {
        match self {
            // What fails here makes an end less exact.
            Self::Plain(stream) => drop(stream.set_zero_linger()),
            Self::Sidecar(stream) => stream.reset(),
            Self::Tls(stream) => stream.get_ref().0.reset(),
            Self::Tunnel(_) => {}
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tunnel(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Sidecar(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tunnel(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Sidecar(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
            Self::Sidecar(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Sidecar(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
