//! What a proxy is configured with: a directory of manifests, or a cluster.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use mesh_config::{Config, Options};
use tokio::sync::watch;

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
    /// Whether Secrets can be read there.
    pub(crate) const fn has_credentials(&self) -> bool {
        self.config.is_some()
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
