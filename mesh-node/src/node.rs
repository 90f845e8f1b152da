//! Puts the daemon together, runs it and takes it apart.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Instant};

use mesh_admin_server::{AdminSocket, LogControl, LogOutput, PodCgroups};
use mesh_ca::{Authority, IdentityArgs};
use mesh_config::{Config, Credentials, Options};
use mesh_core::{NodeName, Snapshot};
use mesh_netlink::SockDiag;
use mesh_otlp::{Collector, Exporter, Source, SpanArgs};
use mesh_transport::{Identities, IdentitySettings, Limits, hbone::Server};
use mesh_xds::{Following, Progress};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
};

use crate::{
    admin::Admin,
    args::{Args, SameNode},
    bpf::{self, Datapath, KernelEvents, LoadOptions},
    direct::DirectPath,
    drops,
    handover::{self, HandoverState, Inheritance, Predecessor, Succession},
    keeper::Keeper,
    kubelet::{HostNetns, Kubelet},
    lifecycle::{self, Patience, Signals},
    memory,
    nri::{self, Nri, NriSettings},
    pod_events,
    pods::{Enrolment, EnrolmentSettings},
    proxy,
    repairs::EnrolmentEvents,
    telemetry::{Endpoints, Exports, Finished, Metrics, Spans, Telemetry},
    workers::Workers,
};

/// Pods that may wait for the enrolment loop at once: the runtime asks of one after the other.
const STARTS: usize = 16;

/// What every worker shares.
pub struct Shared {
    /// Name of the cluster, for telemetry.
    pub cluster: String,
    /// Certificates.
    pub identities: Identities,
    /// What happened to the node's pods lately.
    pub enrolment_events: EnrolmentEvents,
    /// Where connections are told.
    pub telemetry: Arc<Telemetry>,
    /// Limits of tunnels.
    pub limits: Limits,
    /// The accepting side of tunnels.
    pub hbone: Server,
    /// Connections between pods of this node, which the kernel makes.
    pub direct: DirectPath,
    /// Whether pods are told of hosts when they ask DNS.
    pub tells_hosts: bool,
    /// How this daemon came to be in charge.
    pub handover: Arc<HandoverState>,
    /// How far it is with what mesh-control serves, where it takes its configuration from there.
    pub control: Option<Progress>,
    /// How pods come to be known as they start.
    pub nri: watch::Sender<nri::Discovery>,
    config: watch::Receiver<Arc<Config>>,
}

impl Shared {
    /// The snapshot in force now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.config.borrow().snapshot.clone()
    }

    /// The configuration in force and every one that follows.
    #[must_use]
    pub fn config_changes(&self) -> watch::Receiver<Arc<Config>> {
        self.config.clone()
    }

    /// The configuration in force now.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }
}

/// What was checked and opened before the data path came into force, and the data path.
pub struct Prepared {
    authority: Authority,
    collector: Option<Collector>,
    config: watch::Receiver<Arc<Config>>,
    control: Option<Progress>,
    succession: Option<Succession>,
    endpoints: Endpoints,
    admin: AdminSocket,
    cgroup_root: PathBuf,
    datapath: Datapath,
}

/// Checks the machine and the arguments, asks a daemon that runs whether it hands over, and then puts the data path in force
/// beside that one's: what can fail for their sake.
///
/// The data path is last, and goes again where something fails later: an earlier daemon's hooks, and a running one's, stay
/// as they are.
///
/// # Errors
/// One sentence that says what is missing.
pub async fn prepare(args: &Args) -> anyhow::Result<Prepared> {
    raise_descriptor_limit();
    let cgroup_root = bpf::precheck(args.cgroup_root.as_deref(), &args.bpf_dir, &args.proc)?;
    let authority = args.identity.authority().map_err(of_flag(args.identity.authority_flag()))?;
    let options = Options {
        trust_domain: args.identity.trust_domain.clone(),
        cluster_domain: args.cluster_domain.clone(),
        root_namespace: args.root_namespace.clone(),
        credentials: Credentials::Nobodys,
        statuses: false,
        served: false,
    };
    let (config, control) = configuration(args, &authority, options).await?;
    let collector = args.spans.collector().map_err(of_flag(SpanArgs::COLLECTOR_FLAG))?;
    let mut succession = Succession::begin(&args.admin_socket, &args.node).await;
    let lent = succession.as_mut().map(Succession::take_endpoints).unwrap_or_default();
    let endpoints = Endpoints::open(args.metrics_addr, args.readiness_addr, lent).await?;
    let admin = AdminSocket::open(&args.admin_socket)?;
    let options =
        LoadOptions { bpf_dir: &args.bpf_dir, cgroup_root: &cgroup_root, proc: &args.proc, log: args.bpf_log };
    let datapath = Datapath::load(&options)?;
    Ok(Prepared { authority, collector, config, control, succession, endpoints, admin, cgroup_root, datapath })
}

/// What the mesh is configured with, as it is now and as it changes.
async fn configuration(
    args: &Args,
    authority: &Authority,
    options: Options,
) -> anyhow::Result<(watch::Receiver<Arc<Config>>, Option<Progress>)> {
    if let Some(dir) = &args.config {
        let config = mesh_config::watch(dir.clone(), options).await.map_err(of_flag("--config"))?;
        return Ok((config, None));
    }
    if args.kubernetes {
        let client = mesh_kube::client(args.kubeconfig.as_deref()).await.map_err(of_flag("--kubernetes"))?;
        return Ok((mesh_kube::watch(client, options).await, None));
    }
    let trust = authority.source().trust();
    // Nodes have no Secrets, and nothing else that is not served.
    let (_, nothing) = mpsc::channel(1);
    let following = args.control.follow(&args.identity, &trust, ("mesh-node", &args.node), options, nothing);
    let Following { config, progress } = following.await.map_err(of_flag("--control-address"))?;
    Ok((config, Some(progress)))
}

/// Resolves when the mesh is being uninstalled.
async fn uninstalled(args: Args) {
    if let Some((namespace, name)) = &args.daemon_set {
        match mesh_kube::client(args.kubeconfig.as_deref()).await {
            Ok(client) => return mesh_kube::daemon_set_deleted(client, namespace, name).await,
            Err(error) => tracing::error!(%error, "an uninstallation will leave hooks behind"),
        }
    }
    std::future::pending().await
}

/// Resolves once it is known that the mesh is not being uninstalled.
async fn stays(args: Args) {
    let Some((namespace, name)) = &args.daemon_set else { return };
    // Who cannot ask is told of no uninstallation either.
    let Ok(client) = mesh_kube::client(args.kubeconfig.as_deref()).await else { return };
    if !mesh_kube::daemon_set_stays(client, namespace, name).await {
        std::future::pending().await
    }
}

fn of_flag<E: std::fmt::Display>(flag: &'static str) -> impl Fn(E) -> anyhow::Error {
    move |error| anyhow::anyhow!("{flag}: {error}")
}

/// Descriptors for all connections that the daemon is ready to carry; the kernel's usual `fs.nr_open`.
const DESCRIPTORS: u64 = 1 << 20;

/// Each carried connection takes two descriptors: the soft limit of 1,024 that shells set would be reached at once.
fn raise_descriptor_limit() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let most = Some(hard.map_or(DESCRIPTORS, |hard| hard.max(DESCRIPTORS)));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })
        .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }));
    // The old limit serves as well, for fewer connections.
    if let Err(error) = raised {
        tracing::warn!(%error, "limit of open files not raised");
    }
}

fn limits(args: &Args) -> Limits {
    let direct_per_destination = args.direct_tunnels.map_or(usize::MAX, usize::from);
    Limits { direct_per_destination, ..Limits::default() }
}

/// Takes over from a daemon that runs, if one does, and carries connections until another takes over, or until SIGTERM or
/// SIGINT.
///
/// # Errors
/// What could not be started.
pub async fn run(args: Args, prepared: Prepared, log: LogControl) -> anyhow::Result<()> {
    let started = Instant::now();
    let Prepared { authority, collector, config, control, succession, endpoints, admin, cgroup_root, mut datapath } =
        prepared;
    if args.bpf_log {
        bpf::forward_logs(datapath.ebpf_mut())?;
    }
    let (telemetry, exporter) = telemetry(collector, config.clone(), &datapath, (&args, log.output()))?;
    let shared = share(&args, &datapath, &authority, telemetry, (config.clone(), control))?;
    let workers = Workers::start(worker_count(&args), &shared, datapath.maps_dir())?;
    let host_netns = HostNetns::own()?;
    let kubelet = Kubelet::new(args.kubelet_cgroup.as_deref(), &cgroup_root, &args.proc, host_netns);
    let (kernel_settings, maps_dir) = (datapath.settings()?, datapath.maps_dir().to_owned());
    let hooks = datapath.hook_watch(&cgroup_root, &args.proc);
    let (keeper, kept) = take_back(&shared).await?;
    let (mut enrolment, nri) = enrolment(&args, host_netns.inode, datapath, &workers, &shared, keeper)?;
    let mut signals = Signals::catch()?;
    let upkeep = upkeep(shared.clone(), workers.clone(), authority, exporter, args.clone());
    let mut upkeep: lifecycle::Upkeep = Box::pin(upkeep);
    let (lifelines, nri) = tokio::select! {
        () = &mut upkeep => return stopped("the watch of the configuration"),
        () = signals.next() => return Ok(()),
        taken = lifecycle::take_over(succession, kept, &mut enrolment, &shared, nri) => taken?,
    };
    workers.open();
    let (ready, is_ready) = watch::channel(false);
    let api = Admin {
        node: NodeName::from(args.node.as_str()),
        started,
        workers: Arc::downgrade(&workers),
        shared: shared.clone(),
        pods: enrolment.view(),
        hooks,
        log: Arc::new(log),
    };
    let (orders, ordered) = mpsc::channel(1);
    let heir = Predecessor::new(&args.node, endpoints.duplicates()?, orders.clone(), &shared, lifelines);
    let kernel = KernelEvents::open(&maps_dir)?;
    let successors = Predecessor::listen(&handover::socket_path(&args.admin_socket))?;
    let listener = admin.publish()?;
    tracing::info!(node = args.node, admin_socket = %args.admin_socket.display(), "mesh-node started");
    let (uninstalled, pods_told) = (uninstalled(args.clone()), pod_events::tell(&args, &shared));
    let pods = PodCgroups::below(cgroup_root);
    let service = async move {
        tokio::select! {
            released = heir.serve(successors) => Ok(released),
            () = enrolment.run(config, ready, ordered, uninstalled) => stopped("the enrolment loop"),
            () = endpoints.serve(shared.telemetry.metrics.clone(), is_ready) => stopped("the endpoints"),
            () = serve_admin(listener, args.admin_port, pods, Arc::new(api)) => stopped("the admin API"),
            () = kubelet.follow(kernel_settings) => stopped("the watch of kubelet"),
            () = nri.run() => stopped("the container runtime's plugin"),
            () = pods_told => stopped("the writer of pods' Events"),
            () = drops::tell(kernel.drops, &shared) => stopped("the reader of the kernel's drops"),
            () = shared.direct.run(kernel.direct, kernel.signals) => stopped("the reader of direct connections"),
        }
    };
    let limits = Patience { handed_over: args.drain_timeout, stopped: args.stop_timeout };
    lifecycle::live(Box::pin(service), upkeep, signals, orders, workers, limits, stays(args)).await
}

/// A part of the daemon that has no end has ended.
fn stopped<T>(part: &str) -> anyhow::Result<T> {
    anyhow::bail!("{part} stopped by itself, which is a defect of the daemon; it ends, to be started anew")
}

/// What a daemon that crashed has left with the process above this one, if there is one.
async fn take_back(shared: &Shared) -> anyhow::Result<(Keeper, Inheritance)> {
    let (keeper, kept) = Keeper::take_back().await?;
    shared.handover.set_restarts(keeper.restarts());
    shared.telemetry.metrics.succession.restarted(keeper.restarts());
    Ok((keeper, kept))
}

/// Serves the admin API wherever it is asked for.
async fn serve_admin(listener: UnixListener, port: Option<u16>, pods: PodCgroups, api: Arc<Admin>) {
    let Some(port) = port else { return mesh_admin_server::serve(listener, api).await };
    tokio::select! {
        () = mesh_admin_server::serve(listener, api.clone()) => {}
        () = mesh_admin_server::serve_loopback(port, Some(pods), api) => {}
    }
}

/// What all of the daemon shares.
fn share(
    args: &Args,
    datapath: &Datapath,
    authority: &Authority,
    telemetry: Arc<Telemetry>,
    (config, control): (watch::Receiver<Arc<Config>>, Option<Progress>),
) -> anyhow::Result<Arc<Shared>> {
    let limits = limits(args);
    let direct = DirectPath::new(datapath.direct_maps()?, telemetry.clone(), connects_directly(args));
    let identities = identities(authority, args, &telemetry.metrics)?;
    if let Some(progress) = &control {
        telemetry.metrics.register_control(progress.clone())?;
    }
    Ok(Arc::new(Shared {
        cluster: args.cluster.clone(),
        hbone: Server::new(limits.clone(), identities.trust()),
        identities,
        telemetry,
        enrolment_events: EnrolmentEvents::default(),
        limits,
        direct,
        tells_hosts: !args.no_dns_capture,
        handover: Arc::default(),
        control,
        nri: watch::Sender::new(nri::Discovery::Unknown),
        config,
    }))
}

/// What established connections need, until the last of them has ended.
async fn upkeep(
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    authority: Authority,
    exporter: Option<Exporter<Finished>>,
    args: Args,
) {
    let (config, metrics) = (shared.config_changes(), shared.telemetry.metrics.clone());
    tokio::select! {
        () = rejudge(config.clone(), &workers) => {}
        () = follow_config(config, metrics.clone()) => {}
        () = export(exporter, &args, &shared.telemetry) => {}
        () = follow_authority(&shared.identities, &authority) => {}
    }
}

/// Keeps certificates and the trust bundle current.
async fn follow_authority(identities: &Identities, authority: &Authority) {
    tokio::join!(identities.run(), authority.follow());
}

/// The certificates' keeper, of which the metrics tell.
fn identities(authority: &Authority, args: &Args, metrics: &Metrics) -> anyhow::Result<Identities> {
    let IdentityArgs { certificate_lifetime: lifetime, trust_domain, .. } = &args.identity;
    let base = IdentitySettings::new(trust_domain.clone());
    let settings = IdentitySettings { lifetime: *lifetime, carriers: args.tunnels.into(), ..base };
    let identities = Identities::new(authority.source(), settings);
    metrics.register_certificates(identities.clone())?;
    Ok(identities)
}

/// Where connections are told, and who sends their spans to a collector, where one is named.
fn telemetry(
    collector: Option<Collector>,
    config: watch::Receiver<Arc<Config>>,
    datapath: &Datapath,
    (args, log): (&Args, &LogOutput),
) -> anyhow::Result<(Arc<Telemetry>, Option<Exporter<Finished>>)> {
    let metrics = Arc::new(Metrics::new(args.cluster.clone())?.with_kernel(datapath.counters()?).with_log(log)?);
    let (spans, exporter) = match collector.map(|collector| Spans::to(collector, args.spans.trace_sampling)) {
        Some((spans, exporter)) => (spans, Some(exporter)),
        None => (Spans::named_alone(args.spans.trace_sampling), None),
    };
    let exports = Exports::new(config, log.clone());
    Ok((Arc::new(Telemetry::new(metrics, spans, exports, !args.no_request_metrics)), exporter))
}

/// Whether the kernel connects pods of this node: a connection that policy comes to deny must be ended, and only the
/// kernel can end one that the daemon does not carry.
fn connects_directly(args: &Args) -> bool {
    if args.same_node == SameNode::Mtls {
        return false;
    }
    let checked = SockDiag::open().and_then(|mut diag| diag.can_destroy());
    if let Err(error) = &checked {
        tracing::warn!(%error, "pods of this node are connected by mTLS, as with --same-node mtls");
    }
    checked.is_ok()
}

/// The enrolment loop, and who has it decide on pods that start.
fn enrolment(
    args: &Args,
    host_netns: u64,
    datapath: Datapath,
    workers: &Arc<Workers>,
    shared: &Arc<Shared>,
    keeper: Keeper,
) -> anyhow::Result<(Enrolment, Nri)> {
    let (starts, starting) = mpsc::channel(STARTS);
    let settings = enrolment_settings(args, host_netns);
    let enrolment = Enrolment::new(settings, datapath, workers.clone(), shared.clone(), starting, keeper)?;
    let nri = Nri::new(nri_settings(args, host_netns), shared, starts, enrolment.roster());
    Ok((enrolment, nri))
}

fn enrolment_settings(args: &Args, host_netns: u64) -> EnrolmentSettings {
    let node = NodeName::from(args.node.as_str());
    EnrolmentSettings { node, host_netns, proc: args.proc.clone(), existing: args.existing_connections }
}

fn nri_settings(args: &Args, host_netns: u64) -> NriSettings {
    let (socket, exempt) = (args.nri_socket.clone(), args.nri_exempt.clone());
    NriSettings { socket, exempt, proc: args.proc.clone(), host_netns }
}

fn worker_count(args: &Args) -> usize {
    let cores = std::thread::available_parallelism();
    args.workers.map_or_else(|| cores.map_or(1, usize::from), usize::from)
}

/// Sends lines and spans to collectors that Telemetries name, and spans where a flag names one.
async fn export(exporter: Option<Exporter<Finished>>, args: &Args, telemetry: &Telemetry) {
    let source = Source::new("mesh-node", "mesh-node", env!("CARGO_PKG_VERSION"));
    let source = source.with("k8s.node.name", &args.node).with("k8s.cluster.name", &args.cluster);
    let metrics = &telemetry.metrics;
    let spans = async {
        if let Some(exporter) = exporter {
            exporter.run(&source, |fate, count| metrics.spans(fate, count)).await;
        }
    };
    tokio::join!(spans, telemetry.exports.follow(&source, metrics));
}

/// Has connections that live judged by every new configuration, as it comes into force.
async fn rejudge(mut config: watch::Receiver<Arc<Config>>, workers: &Workers) {
    while config.changed().await.is_ok() {
        workers.each(proxy::rejudge);
    }
    // The last good configuration stays in force.
    std::future::pending().await
}

/// Tells of each new configuration and of what was not found in the one before.
async fn follow_config(mut config: watch::Receiver<Arc<Config>>, metrics: Arc<Metrics>) {
    let mut told = BTreeSet::new();
    loop {
        let current = config.borrow_and_update().clone();
        metrics.set_config(&current);
        for finding in current.findings.iter().filter(|finding| !told.contains(*finding)) {
            tracing::warn!(generation = current.generation, "{finding}");
        }
        told = current.findings.iter().cloned().collect();
        tracing::info!(generation = current.generation, findings = current.findings.len(), "configuration in force");
        memory::give_back();
        if config.changed().await.is_err() {
            // The last good configuration stays in force.
            return std::future::pending().await;
        }
    }
}
