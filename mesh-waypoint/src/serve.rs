//! The waypoint: its listener, its threads, and how it ends.

use std::{
    collections::HashSet,
    io, net,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use anyhow::Context as _;
use mesh_admin_server::{AdminSocket, LogControl, LogOutput};
use mesh_ca::Authority;
use mesh_config::{Config, Options};
use mesh_core::{SpiffeId, TrustDomain};
use mesh_otlp::{Exporter, Source, SpanArgs};
use mesh_transport::{Identities, IdentitySettings, Limits, hbone::Server};
use mesh_xds::Progress;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    admin::{self, Admin},
    args::{GatewayName, ServeArgs},
    authn::{self, KeyStore},
    counts::{RuleBook, Threads},
    endpoints::Endpoints,
    inbound::Patience,
    limits::LimitBook,
    listeners::{self, Listeners, Own},
    telemetry::{Exports, Finished, Telemetry, Tracer},
    upstream::{Names, Originations, SharedClusters},
    worker::{Door, Workers},
};

/// Connections served at once, tunnels and a gateway's; others are closed at once, so that their clients try another replica.
const MAX_CONNECTIONS: usize = 16_384;
/// Of these, how many may be a client's connection each: there stays room for connections that many clients' share.
const MAX_DIRECT: usize = MAX_CONNECTIONS / 2;
/// After how long a tunnel's silent peer is asked whether it is there, and how long it may take for an answer. A request waits for
/// one that has gone, and would go elsewhere; bytes that nobody looks into may well go on after an outage, so that nodes wait longer.
const SILENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));
/// Connections that are taken yet when a door is closed; more than wait at any.
const MOST_WAITING: usize = 4096;
/// Pause after accept() failed for lack of memory or descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a gateway takes new connections after SIGTERM, and lets those stay that nothing is under way on, where it has that much
/// time: load balancers have to hear first that it is not ready. Istio's gateways have as long.
const LAME_DUCK: Duration = Duration::from_secs(5);
/// How often the end of the last tunnel is looked for while draining.
const DRAIN_LOOK: Duration = Duration::from_millis(50);

/// What all threads share.
pub(crate) struct Shared {
    /// The pod that this is.
    pub(crate) own: Own,
    /// Standard output.
    pub(crate) log: LogOutput,
    /// What is measured.
    pub(crate) telemetry: Arc<Telemetry>,
    /// Where spans go, if anywhere.
    pub(crate) tracer: Option<Arc<Tracer>>,
    /// Collectors that Telemetries name.
    pub(crate) exports: Exports,
    /// The keys that tokens are verified with.
    pub(crate) keys: KeyStore,
    /// The gateway's listeners.
    pub(crate) listeners: watch::Sender<Arc<Listeners>>,
    /// Under which it dials.
    pub(crate) identity: SpiffeId,
    /// Its certificate.
    pub(crate) identities: Identities,
    /// The configuration in force.
    pub(crate) config: watch::Receiver<Arc<Config>>,
    /// How far that is with what mesh-control serves; none where it comes from elsewhere.
    pub(crate) control: Option<Progress>,
    /// What serves tunnels.
    pub(crate) server: Server,
    /// Where endpoints' nodes take tunnels.
    pub(crate) tunnel_port: u16,
    /// Bounds on tunnels.
    pub(crate) limits: Limits,
    /// How long clients may do nothing.
    pub(crate) patience: Patience,
    /// What the threads do.
    pub(crate) threads: Threads,
    /// How often rules were used.
    pub(crate) rules: RuleBook,
    /// How many requests may pass.
    pub(crate) limit_book: LimitBook,
    /// What is known of upstreams, over all threads.
    pub(crate) clusters: SharedClusters,
    /// TLS that is begun to endpoints.
    pub(crate) originations: Originations,
    /// Names that DNS has the addresses of.
    pub(crate) names: Names,
    /// True once no more shall begin.
    pub(crate) draining: watch::Sender<bool>,
    /// How long idle connections of clients stay from then on, and a gateway takes new ones.
    pub(crate) lame_duck: Duration,
    /// Connections being served.
    pub(crate) connections: AtomicUsize,
    /// Doors that are open, or have something waiting that is not handed over yet.
    doors: AtomicUsize,
}

impl Shared {
    /// Counts one connection for as long as what it returns is there.
    pub(crate) fn count_connection(self: &Arc<Self>) -> ConnectionGuard {
        self.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(self.clone())
    }
}

/// A connection that counts.
pub(crate) struct ConnectionGuard(Arc<Shared>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves until SIGTERM or SIGINT, then lets what is under way end within the time that it has for it.
///
/// # Errors
/// What could not be started.
pub(crate) async fn run(args: ServeArgs, log: LogControl) -> anyhow::Result<()> {
    let authority = args.certificate.authority().context(args.certificate.authority_flag())?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("--listen {}", args.listen))?;
    let endpoints = Endpoints::open(args.metrics_addr, args.readiness_addr).await?;
    let socket = args.admin_socket.as_deref().map(AdminSocket::open).transpose()?;
    let (address, drain_time, admin_port) = (args.listen.ip(), args.drain_time, args.admin_port);
    let count = args.workers.map_or_else(|| available_parallelism().map_or(1, NonZeroUsize::get), usize::from);
    let (shared, exporter) = share(args, &authority, log.output().clone()).await?;
    let shared = Arc::new(shared);
    let workers = Arc::new(Workers::start(&shared, count).context("--workers")?);
    let api = Admin::new(shared.clone(), log);
    let socket = socket.map(AdminSocket::publish).transpose()?;
    tracing::info!(address = %listener.local_addr()?, waypoint = %shared.own.gateway, identity = %shared.identity, workers = count, "waypoint listening");
    let background = async {
        tokio::join!(
            shared.identities.run(),
            authority.follow(),
            endpoints.serve(&shared),
            follow_generations(&shared),
            admin::serve(socket, admin_port, api),
            export(exporter, &shared),
            shared.exports.follow(shared.config.clone(), source(&shared)),
            authn::follow(&shared),
            shared.names.follow(),
        );
    };
    tokio::pin!(background);
    let deadline;
    {
        let from_outside = listeners::follow(&shared, address, &workers);
        tokio::pin!(from_outside);
        tokio::select! {
            () = accept(listener, &shared, &workers, Door::Tunnel) => {}
            () = &mut from_outside => {}
            () = &mut background => {}
            stopped = told_to_stop() => stopped?,
        }
        // Nodes turn to another replica where nobody listens; who is outside knows of no other until its load balancer does.
        shared.draining.send_replace(true);
        deadline = Instant::now() + drain_time;
        tokio::select! {
            () = &mut from_outside => {}
            () = &mut background => {}
            () = known_to_end(&shared) => {}
        }
    }
    tokio::select! {
        () = drain(&shared, deadline) => {}
        () = &mut background => {}
    }
    if let Some(workers) = Arc::into_inner(workers) {
        workers.stop();
    }
    Ok(())
}

/// What all threads share, once there is a configuration.
async fn share(
    args: ServeArgs,
    authority: &Authority,
    log: LogOutput,
) -> anyhow::Result<(Shared, Option<Exporter<Finished>>)> {
    let collector = args.spans.collector().context(SpanArgs::COLLECTOR_FLAG)?;
    let trust_domain = args.certificate.trust_domain.clone();
    let identity = SpiffeId::new(&trust_domain, &args.identity.namespace, &args.identity.name)?;
    let options = Options {
        trust_domain: trust_domain.clone(),
        cluster_domain: args.cluster_domain,
        root_namespace: args.root_namespace,
        credentials: args.source.credentials(&args.name),
        statuses: false,
        served: false,
    };
    let known_by = (&args.certificate, &authority.source().trust());
    let (config, control) = args.source.watch(known_by, args.pod.as_ref().unwrap_or(&args.name), options).await?;
    let identities = hold(&identity, trust_domain, args.certificate.certificate_lifetime, authority);
    let (ping_interval, ping_timeout) = SILENCE;
    let limits = Limits { direct_connections: MAX_DIRECT, ping_interval, ping_timeout, ..Limits::default() };
    let rules = RuleBook::default();
    let telemetry = Arc::new(Telemetry::new(args.cluster, &rules)?);
    telemetry.register_log(&log)?;
    control.clone().map(|progress| telemetry.register_control(progress)).transpose()?;
    let told = &telemetry.own.spans;
    let exports = Exports::new(args.spans.trace_sampling, telemetry.own.log_lines.clone(), told.clone());
    let spans = collector.map(|collector| Tracer::to(collector, args.spans.trace_sampling, told.clone()));
    let (tracer, exporter) = spans.unzip();
    let refresh = Duration::from_secs(args.dns_refresh.into());
    let shared = Shared {
        log,
        tracer,
        exports,
        keys: KeyStore::new(args.jwks_refresh, telemetry.clone()),
        own: Own { gateway: args.name, pod: args.pod, hostname: hostname() },
        originations: Originations::default(),
        names: Names::new(refresh, telemetry.own.dns_failures.clone()),
        telemetry,
        listeners: watch::Sender::default(),
        server: Server::new(limits.clone(), identities.trust()).taking_names(),
        identity,
        identities,
        config,
        control,
        limits,
        patience: Patience { idle: limit(args.idle_timeout), stream_idle: limit(args.stream_idle_timeout) },
        tunnel_port: args.tunnel_port,
        threads: Threads::default(),
        rules,
        limit_book: LimitBook::default(),
        clusters: SharedClusters::default(),
        draining: watch::Sender::new(false),
        lame_duck: LAME_DUCK.min(args.drain_time / 2),
        connections: AtomicUsize::new(0),
        doors: AtomicUsize::new(0),
    };
    Ok((shared, exporter))
}

/// Has the process's one identity certified, now and whenever its certificate nears its end.
fn hold(identity: &SpiffeId, trust_domain: TrustDomain, lifetime: Duration, authority: &Authority) -> Identities {
    let settings = IdentitySettings { lifetime, ..IdentitySettings::new(trust_domain) };
    let identities = Identities::new(authority.source(), settings);
    identities.hold(&HashSet::from([identity.clone()]));
    identities
}

/// What the host is called, as far as the kernel tells.
fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// A limit, of which nothing is none.
fn limit(limit: Duration) -> Option<Duration> {
    Some(limit).filter(|limit| !limit.is_zero())
}

/// Sends spans, where a collector is named.
async fn export(exporter: Option<Exporter<Finished>>, shared: &Shared) {
    let Some(exporter) = exporter else { return };
    let told = &shared.telemetry.own.spans;
    exporter.run(&source(shared), |fate, count| told.with_label_values(&[fate.as_str()]).inc_by(count)).await;
}

/// Whom collectors take this process for.
fn source(shared: &Shared) -> Source {
    let GatewayName { namespace, name } = &shared.own.gateway;
    let source = Source::new("mesh-waypoint", &format!("{name}.{namespace}"), env!("CARGO_PKG_VERSION"));
    let source = source.with("k8s.namespace.name", namespace).with("k8s.cluster.name", shared.telemetry.cluster());
    match &shared.own.pod {
        Some(pod) => source.with("k8s.pod.name", &pod.name),
        None => source,
    }
}

/// Tells which configuration is in force, and forgets what was counted for another one.
async fn follow_generations(shared: &Shared) {
    let mut config = shared.config.clone();
    loop {
        let now = config.borrow_and_update().clone();
        shared.rules.keep(admin::all_rules(now.snapshot.l7()));
        shared.limit_book.keep(now.snapshot.rate_limits());
        shared.telemetry.own.generation.set(i64::try_from(now.generation).unwrap_or(i64::MAX));
        if config.changed().await.is_err() {
            // The last good configuration stays in force.
            return std::future::pending().await;
        }
    }
}

async fn told_to_stop() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}

/// Hands what comes in at a door over to the threads, as many at once as there may be. Dropped, it hands over what waits at the
/// door before that is closed, which would reset it.
pub(crate) async fn accept(listener: TcpListener, shared: &Arc<Shared>, workers: &Workers, door: Door) {
    shared.doors.fetch_add(1, Ordering::Relaxed);
    let entry = Entry { listener: Some(listener), shared, workers, door };
    while let Some(listener) = &entry.listener {
        match listener.accept().await {
            Ok((stream, peer)) => match stream.into_std() {
                Ok(stream) => entry.hand_over(stream, peer),
                Err(error) => tracing::warn!(%peer, %error, "connection not handed over"),
            },
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A door that is open.
struct Entry<'a> {
    listener: Option<TcpListener>,
    shared: &'a Arc<Shared>,
    workers: &'a Workers,
    door: Door,
}

impl Entry<'_> {
    fn hand_over(&self, stream: net::TcpStream, peer: net::SocketAddr) {
        let crowding = &self.shared.telemetry.crowding;
        if self.shared.connections.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            return crowding.turned_away(peer, "too many connections");
        }
        if !self.workers.carry(stream, (peer, self.door), self.shared.count_connection()) {
            crowding.turned_away(peer, "its thread has too many waiting");
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Some(Ok(listener)) = self.listener.take().map(TcpListener::into_std) {
            for (stream, peer) in std::iter::from_fn(|| listener.accept().ok()).take(MOST_WAITING) {
                match stream.set_nonblocking(true) {
                    Ok(()) => self.hand_over(stream, peer),
                    Err(error) => tracing::warn!(%peer, %error, "connection not handed over"),
                }
            }
        }
        self.shared.doors.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Resolves once load balancers have heard that a gateway ends; at once where nobody comes from outside.
async fn known_to_end(shared: &Shared) {
    let is_gateway = shared.listeners.borrow().ports().next().is_some();
    if is_gateway {
        sleep(shared.lame_duck).await;
    }
}

/// Listeners are closing; what waits there, and what is open, gets to end.
async fn drain(shared: &Shared, deadline: Instant) {
    tracing::info!(connections = shared.connections.load(Ordering::Relaxed), "waypoint draining");
    let is_busy = || shared.doors.load(Ordering::Relaxed) + shared.connections.load(Ordering::Relaxed) > 0;
    while is_busy() && Instant::now() < deadline {
        sleep_until((Instant::now() + DRAIN_LOOK).min(deadline)).await;
    }
    let cut = shared.connections.load(Ordering::Relaxed);
    tracing::info!(cut, "waypoint drained");
}
