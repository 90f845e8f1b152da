//! A directory of manifests, or a cluster's objects, as a daemon would read them.

use clap::Args;
use mesh_config::{Credentials, LiveObjects, Options};
use mesh_core::TrustDomain;

use crate::cluster::Cluster;

/// What a daemon is told beside its manifests; by default the same as its own defaults.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "For manifests, as the daemon's own flags")]
pub(crate) struct Reading {
    /// Trust domain of all identities.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// DNS suffix of Services.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Namespace whose policies are the whole mesh's.
    #[arg(long, value_name = "NAMESPACE", default_value = mesh_core::policy::ROOT_NAMESPACE)]
    root_namespace: String,
}

impl Reading {
    /// As mesh-config takes it.
    pub(crate) fn options(&self) -> Options {
        Options {
            trust_domain: self.trust_domain.clone(),
            cluster_domain: self.cluster_domain.clone(),
            root_namespace: self.root_namespace.clone(),
            // Whoever asks can read the files.
            credentials: Credentials::Everybodys,
            statuses: false,
            served: false,
        }
    }

    /// A cluster's objects as they are now. Secrets are not asked for: who may see the rest may often not see them.
    pub(crate) async fn of_cluster(&self, cluster: &Cluster) -> anyhow::Result<LiveObjects> {
        let options = Options { credentials: Credentials::Nobodys, ..self.options() };
        Ok(mesh_kube::read(&cluster.client, options).await?)
    }
}
