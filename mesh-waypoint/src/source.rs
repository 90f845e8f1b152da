//! What a proxy is configured with: a directory of manifests, or a cluster.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use mesh_config::{Config, Credentials, Options};
use tokio::sync::watch;

use crate::args::GatewayName;

/// Where the configuration comes from.
#[derive(Debug, clap::Args)]
pub(crate) struct SourceArgs {
    /// Directory of manifests (YAML or JSON); it is watched.
    #[arg(long, value_name = "DIR", required_unless_present = "kubernetes", conflicts_with = "kubernetes")]
    config: Option<PathBuf>,
    /// Follow a Kubernetes cluster: as the pod that this runs in, or by --kubeconfig.
    #[arg(long)]
    kubernetes: bool,
    /// File that says how to reach the cluster, for a process that runs in no pod.
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
}

impl SourceArgs {
    /// Whose Secrets are read: in a cluster those of its own Gateway, which alone it may.
    pub(crate) fn credentials(&self, own: &GatewayName) -> Credentials {
        if self.kubernetes {
            Credentials::Of { namespace: own.namespace.clone(), name: own.name.clone() }
        } else {
            Credentials::Everybodys
        }
    }

    /// The configuration in force, from the first on, which this waits for.
    ///
    /// # Errors
    /// The directory cannot be read, or there is no way to the API server.
    pub(crate) async fn watch(self, options: Options) -> anyhow::Result<watch::Receiver<Arc<Config>>> {
        match self.config {
            Some(dir) => mesh_config::watch(dir, options).await.context("--config"),
            None => {
                let client = mesh_kube::client(self.kubeconfig.as_deref()).await.context("--kubernetes")?;
                Ok(mesh_kube::watch(client, options).await)
            }
        }
    }
}
