//! What all that is made for Gateways has in common.

use std::path::PathBuf;

use mesh_core::TrustDomain;

/// How Gateways' proxies are run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct GatewayArgs {
    /// Image of the proxies of Gateways; without it none are run.
    #[arg(long = "gateway-image", value_name = "IMAGE", requires = "kubernetes")]
    pub(crate) image: Option<String>,
    /// When that image is pulled.
    #[arg(long = "gateway-image-pull-policy", value_name = "POLICY", default_value = "IfNotPresent")]
    pub(crate) pull_policy: String,
    /// Secrets in the Gateways' namespaces by which it is pulled.
    #[arg(long = "gateway-pull-secret", value_name = "NAME")]
    pub(crate) pull_secrets: Vec<String>,
    /// DNS suffix of Services.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Namespace whose policies are the whole mesh's.
    #[arg(long, value_name = "NAMESPACE", default_value = "istio-system")]
    pub(crate) root_namespace: String,
}

/// The same, with what the rest of the program knows.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) image: String,
    pub(crate) pull_policy: String,
    pub(crate) pull_secrets: Vec<String>,
    pub(crate) cluster_domain: String,
    pub(crate) root_namespace: String,
    pub(crate) trust_domain: TrustDomain,
    /// This program's namespace and Service.
    pub(crate) namespace: String,
    pub(crate) service: String,
    /// Its name in its certificate.
    pub(crate) server_name: String,
    /// Audience of tokens that it takes.
    pub(crate) audience: String,
    /// File with the authority's roots.
    pub(crate) roots: PathBuf,
}
