//! `mesh-control serve`: the certificate authority and the configuration over the network.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use kube::Client;
use mesh_admin_server::METRICS;
use mesh_ca::{CaService, Gatekeeper, ServerIdentity};
use mesh_config::{Config, Credentials, Options};
use mesh_core::TrustDomain;
use mesh_transport::{CertificateSource as _, LocalAuthority, TrustFeed};
use mesh_xds::XdsService;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::admission::{self, AdmissionArgs, Bundle};
use crate::distribution::{Audience, Distribution};
use crate::gateways::{GatewayArgs, Gateways, Settings};
use crate::kubernetes::{CaSecret, ClusterArgs, Election, KubernetesGatekeeper};
use crate::metrics;
use crate::node_taint::NodeTaint;
use crate::node_tokens::NodeTokens;
use crate::object_status::{ObjectStatus, PeerSettings};
use crate::placement::DirectoryGatekeeper;
use crate::redirection::Redirection;

/// By which replicas find out which of them writes.
const LEASE: &str = "mesh-control";

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Where node agents ask for certificates and for the configuration.
    #[arg(long, value_name = "ADDR", default_value = "[::]:15012")]
    listen: SocketAddr,
    /// Address for Prometheus.
    #[arg(long, value_name = "ADDR", default_value = "[::]:15014")]
    metrics_addr: SocketAddr,
    /// Directory with the certificate authority (`mesh-control ca init` makes one); it is followed. With --kubernetes, where
    /// the authority of the Secret is unpacked: a file system in memory.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// Directory of node agents' tokens, a file named after each node (`mesh-control ca token` makes them).
    #[arg(long, value_name = "DIR", required_unless_present = "kubernetes", conflicts_with = "kubernetes")]
    node_tokens: Option<PathBuf>,
    /// Directory of manifests, which say where pods are placed; it is watched.
    #[arg(long, value_name = "DIR", required_unless_present = "kubernetes", conflicts_with = "kubernetes")]
    config: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    gateways: GatewayArgs,
    #[command(flatten)]
    admission: AdmissionArgs,
    /// Writes the status of objects of Istio's kinds: what is found of them, and whether they are in force everywhere.
    #[arg(long, requires = "kubernetes")]
    object_status: bool,
    /// DNS name in the server's own certificate, which node agents ask for.
    #[arg(long, value_name = "NAME", default_value = mesh_ca::SERVER_NAME)]
    server_name: String,
    /// Trust domain of all identities.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// How long certificates live at most, in hours.
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    longest_life: u64,
}

pub(crate) fn run(args: ServeArgs) -> anyhow::Result<()> {
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(EnvFilter::new("info")).init();
    // What nodes are told is encrypted for each of them, by as many threads as there are cores.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let options = Options {
        trust_domain: args.trust_domain.clone(),
        cluster_domain: args.gateways.cluster_domain.clone(),
        root_namespace: args.gateways.root_namespace.clone(),
        credentials: Credentials::Everybodys,
        statuses: true,
        served: true,
    };
    match (&args.node_tokens, &args.config) {
        (Some(tokens), Some(config)) => {
            let tokens = NodeTokens::open(tokens).context("--node-tokens")?;
            let config = mesh_config::watch(config.clone(), options).await.context("--config")?;
            let authority = Arc::new(LocalAuthority::open(&args.ca, SystemTime::now()).context("--ca")?);
            let (tell, _) = watch::channel(None);
            certify(&args, authority, DirectoryGatekeeper { tokens, config: config.clone() }, config, tell).await
        }
        // The parser has seen to it that it is one or the other.
        _ => {
            let client = mesh_kube::client(args.cluster.kubeconfig.as_deref()).await.context("--kubernetes")?;
            let secret = CaSecret::unpack(client.clone(), &args.cluster, &args.ca, &args.trust_domain).await?;
            let authority = Arc::new(LocalAuthority::open(&args.ca, SystemTime::now()).context("--ca")?);
            let config = mesh_kube::watch(client.clone(), options).await;
            let gatekeeper = KubernetesGatekeeper::new(client.clone(), &args.cluster, config.clone());
            let made_up = || format!("mesh-control-{:08x}", fastrand::u32(..));
            let holder = args.cluster.pod_name.clone().unwrap_or_else(made_up);
            let election = Election::new(client.clone(), args.cluster.namespace(), LEASE, holder);
            let bundle = bundle(&args, &client, &authority);
            let served = config.clone();
            let (tell, told) = watch::channel(None);
            let peers = peers(&args, authority.trust());
            let status = args.object_status.then(|| ObjectStatus::new(client.clone(), config.clone(), told, peers));
            let daemon_set = args.cluster.taint_nodes_of.clone();
            let taint = daemon_set.map(|name| NodeTaint::new(&client, args.cluster.namespace(), name));
            let marks = args.cluster.annotate_pods.then(|| Redirection::new(client.clone(), config.clone()));
            let gateways = settings(&args).map(|settings| Gateways::new(client, settings, config, authority.clone()));
            let lead = async || {
                tokio::join!(
                    forever(gateways.as_ref().map(|known| known.run())),
                    forever(bundle.as_ref().map(Bundle::follow)),
                    forever(taint.as_ref().map(NodeTaint::follow)),
                    forever(marks.as_ref().map(Redirection::follow)),
                    forever(status.as_ref().map(ObjectStatus::follow))
                );
            };
            let ended = tokio::select! {
                ended = certify(&args, authority.clone(), gatekeeper, served, tell) => ended,
                ended = admission::serve(&args.admission, &authority, &args.server_name) => ended,
                () = secret.follow() => Ok(()),
                () = election.lead(lead) => Ok(()),
            };
            election.release().await;
            ended
        }
    }
}

/// What there is of it, and then nothing more.
async fn forever(work: Option<impl Future<Output = ()>>) {
    if let Some(work) = work {
        work.await;
    }
    std::future::pending().await
}

/// Who tells the API server of the webhook's roots; none where there is no webhook.
fn bundle(args: &ServeArgs, client: &Client, authority: &Arc<LocalAuthority>) -> Option<Bundle> {
    let (name, roots) = (args.admission.webhook_configuration.clone(), args.ca.join("root-cert.pem"));
    args.admission.webhook_addr.map(|_| Bundle::new(client.clone(), name, authority.clone(), roots))
}

/// How the other replicas are asked.
fn peers(args: &ServeArgs, trust: TrustFeed) -> PeerSettings {
    PeerSettings {
        namespace: args.cluster.namespace().to_owned(),
        service: args.cluster.service.clone(),
        own_pod: args.cluster.pod_name.clone(),
        port: args.listen.port(),
        server_name: args.server_name.clone(),
        root: args.ca.join("root-cert.pem"),
        token: args.cluster.replica_token.clone(),
        trust,
    }
}

/// How Gateways are run; none where no image says by what.
fn settings(args: &ServeArgs) -> Option<Settings> {
    let GatewayArgs { image, pull_policy, pull_secrets, cluster_domain, root_namespace } = args.gateways.clone();
    Some(Settings {
        image: image?,
        pull_policy,
        pull_secrets,
        cluster_domain,
        root_namespace,
        trust_domain: args.trust_domain.clone(),
        namespace: args.cluster.namespace().to_owned(),
        service: args.cluster.service.clone(),
        server_name: args.server_name.clone(),
        audience: args.cluster.token_audience.clone(),
        roots: args.ca.join("root-cert.pem"),
    })
}

/// Signs for those whom `gatekeeper` lets, and tells those whom it knows of the configuration, until it is asked to stop.
async fn certify(
    args: &ServeArgs,
    authority: Arc<LocalAuthority>,
    gatekeeper: impl Gatekeeper,
    config: watch::Receiver<Arc<Config>>,
    tell: watch::Sender<Option<Audience>>,
) -> anyhow::Result<()> {
    let identity = ServerIdentity::new(authority.clone(), &args.server_name).context("--server-name")?;
    let longest = Duration::from_secs(args.longest_life.saturating_mul(3600));
    let gatekeeper = Arc::new(gatekeeper);
    let signing = CaService::new(authority.clone(), gatekeeper.clone(), args.trust_domain.clone(), longest);
    let outcomes = signing.outcomes();
    let distribution = Distribution::new(config);
    let service = XdsService::new(gatekeeper, distribution.state(), signing);
    let audience = Audience { state: distribution.state(), subscribers: service.subscribers() };
    tell.send_replace(Some(audience.clone()));
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("--listen {}", args.listen))?;
    let metrics = METRICS.open(args.metrics_addr, None).await?;
    tracing::info!(address = %listener.local_addr()?, name = args.server_name, "certificate authority listening");
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = mesh_ca::serve(listener, identity, service) => Ok(ended?),
        () = metrics::serve(metrics, outcomes, audience, authority.clone()) => Ok(()),
        () = distribution.follow() => Ok(()),
        () = authority.follow() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}
