//! A Kubernetes cluster, reached by a kubeconfig: whom of the mesh there is to ask.

mod objects;
mod pods;
mod roster;

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

pub(crate) use self::objects::{gateways, kind, namespaces};
pub(crate) use self::pods::{Complaint, PodName};
pub(crate) use self::roster::Roster;

/// Where the mesh is installed unless it is said otherwise.
pub(crate) const MESH_NAMESPACE: &str = "mesh-system";
/// The port of mesh-control's metrics, where it tells who has which generation.
pub(crate) const CONTROL_PORT: u16 = 15_014;
/// Where daemons, waypoints and gateways have their admin API, at their own loopback.
const ADMIN_PORT: u16 = 15_000;
/// How long the API server may take to take a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which cluster, as kubectl is told.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArguments {
    /// The kubeconfig; without it the files that KUBECONFIG names, or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use, in place of its current one.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The namespace that the mesh is installed in.
    #[arg(long, global = true, value_name = "NAMESPACE", env = "MESH_NAMESPACE", default_value = MESH_NAMESPACE)]
    mesh_namespace: String,
    /// The port of the admin API at the loopback of daemons, waypoints and gateways.
    #[arg(long, global = true, value_name = "PORT", default_value_t = ADMIN_PORT)]
    admin_port: u16,
}

/// A cluster that there is a way to.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// The namespace of names that say none: the context's, or `default`.
    pub(crate) namespace: String,
    /// Where the mesh is installed.
    pub(crate) mesh_namespace: String,
    admin_port: u16,
    /// The API server, for people.
    server: String,
}

impl ClusterArguments {
    /// Whether a cluster was asked for, by a flag or by KUBECONFIG.
    pub(crate) fn is_asked_for(&self) -> bool {
        let by_variable = std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
        self.kubeconfig.is_some() || self.context.is_some() || by_variable
    }

    /// Whether there is a kubeconfig where kubectl would find it.
    pub(crate) fn is_there(&self) -> bool {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        self.is_asked_for() || home.is_some_and(|home| home.join(".kube/config").is_file())
    }

    /// As Helm is told which cluster, and which namespace.
    pub(crate) fn for_helm(&self) -> Vec<OsString> {
        let mut place: Vec<OsString> = vec!["--namespace".into(), self.mesh_namespace.clone().into()];
        let flags: [(&str, Option<&std::ffi::OsStr>); 2] = [
            ("--kubeconfig", self.kubeconfig.as_deref().map(AsRef::as_ref)),
            ("--kube-context", self.context.as_deref().map(AsRef::as_ref)),
        ];
        for (flag, value) in flags {
            place.extend(value.into_iter().flat_map(|value| [flag.into(), value.to_owned()]));
        }
        place
    }

    /// The way to the cluster; the API server is not asked yet.
    pub(crate) async fn connect(&self) -> anyhow::Result<Cluster> {
        let read = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let remedy = "name one with --kubeconfig FILE or the variable KUBECONFIG";
        let kubeconfig = read.map_err(|error| anyhow!("no kubeconfig that can be used: {error}; {remedy}"))?;
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let config = config.map_err(|error| {
            anyhow!("the kubeconfig cannot be used: {error}; --context names another of its contexts")
        })?;
        self.reach(config)
    }

    /// The way to the cluster that this pod runs in, as the pod's account.
    pub(crate) fn connect_from_inside(&self) -> anyhow::Result<Cluster> {
        let config = Config::incluster();
        self.reach(config.map_err(|error| anyhow!("this is no pod with an account's token: {error}"))?)
    }

    fn reach(&self, mut config: Config) -> anyhow::Result<Cluster> {
        config.connect_timeout = Some(CONNECT);
        // A stream of flows may say nothing for long; what is asked for whole has `within`.
        config.read_timeout = None;
        Ok(Cluster {
            namespace: config.default_namespace.clone(),
            mesh_namespace: self.mesh_namespace.clone(),
            admin_port: self.admin_port,
            server: config.cluster_url.to_string(),
            client: Client::try_from(config).context("the API server cannot be spoken to")?,
        })
    }
}

impl Cluster {
    /// What the API server answers, within the time that it has; `what` says what was asked for.
    pub(crate) async fn within<T>(
        &self,
        what: &str,
        asked: impl Future<Output = kube::Result<T>>,
    ) -> anyhow::Result<T> {
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                bail!("{what}: {}; ask whoever runs the cluster for that right", status.message)
            }
            Ok(Err(kube::Error::Api(status))) => bail!("{what}: {}", status.message),
            Ok(Err(error)) => {
                Err(error).with_context(|| format!("{what}: the API server {} does not answer", self.server))
            }
            Err(_elapsed) => {
                bail!("{what}: the API server {} has not answered within {} s", self.server, PATIENCE.as_secs())
            }
        }
    }
}
