//! What a proxy is configured with: by mesh-control, a directory of manifests, or a cluster.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use mesh_ca::IdentityArgs;
use mesh_config::{Config, Credentials, Options};
use mesh_kube::NamedChange;
use mesh_transport::TrustFeed;
use mesh_xds::{Beside, ControlArgs, Following, Progress};
use tokio::sync::{mpsc, watch};

use crate::args::GatewayName;

/// Secrets that may be told and not yet taken.
const QUEUE: usize = 16;

/// Where the configuration comes from.
#[derive(Debug, clap::Args)]
#[group(id = "source", required = true, multiple = false, args = ["config", "kubernetes", "control_address"])]
pub(crate) struct SourceArgs {
    /// Directory of manifests (YAML or JSON); it is watched.
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Follow a Kubernetes cluster: as the pod that this runs in, or by --kubeconfig.
    #[arg(long)]
    kubernetes: bool,
    /// With --control-address: read the Secrets and ConfigMaps that the own Gateway's listeners and BackendTLSPolicies name, and nothing else, from the API server.
    /// mesh-control tells of no Secret.
    #[arg(long, requires = "control_address")]
    kubernetes_secrets: bool,
    /// File that says how to reach the cluster, for a process that runs in no pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Follow what mesh-control tells.
    #[command(flatten)]
    control: ControlArgs,
}

/// The configuration in force, and how far it is with what mesh-control serves; none where it comes from elsewhere.
pub(crate) type Watched = (watch::Receiver<Arc<Config>>, Option<Progress>);

impl SourceArgs {
    /// Whose Secrets are read: in a cluster those of its own Gateway, which alone it may.
    pub(crate) fn credentials(&self, own: &GatewayName) -> Credentials {
        if self.config.is_some() {
            Credentials::Everybodys
        } else if self.kubernetes || self.kubernetes_secrets {
            Credentials::Of { namespace: own.namespace.clone(), name: own.name.clone() }
        } else {
            Credentials::Nobodys
        }
    }

    /// The configuration from the first on, which this waits for. `own` is its pod or its Gateway, by which mesh-control knows it; it shows itself
    /// there as to the authority.
    ///
    /// # Errors
    /// The directory cannot be read, there is no way to the API server, or a flag is missing.
    pub(crate) async fn watch(
        &self,
        (identity, trust): (&IdentityArgs, &TrustFeed),
        own: &GatewayName,
        options: Options,
    ) -> anyhow::Result<Watched> {
        if let Some(dir) = &self.config {
            return Ok((mesh_config::watch(dir.clone(), options).await.context("--config")?, None));
        }
        if self.kubernetes {
            let client = mesh_kube::client(self.kubeconfig.as_deref()).await.context("--kubernetes")?;
            return Ok((mesh_kube::watch(client, options).await, None));
        }
        let ((sender, secrets), id) = (mpsc::channel(QUEUE), own.to_string());
        let following = self.control.follow(identity, trust, ("mesh-waypoint", &id), options, secrets);
        let Following { config, progress } = following.await.context("--control-address")?;
        if self.kubernetes_secrets {
            let client = mesh_kube::client(self.kubeconfig.as_deref()).await.context("--kubernetes-secrets")?;
            tokio::spawn(mesh_kube::follow_named(client, config.clone(), move |change| {
                let sender = sender.clone();
                let change = match change {
                    NamedChange::Put(name, value) => Beside::Put(name, value),
                    NamedChange::Gone(name) => Beside::Gone(name),
                };
                async move { sender.send(change).await.is_ok() }
            }));
        }
        Ok((config, Some(progress)))
    }
}
