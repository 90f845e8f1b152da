//! The validating webhook (admissionregistration.k8s.io/v1): what `mesh-ctl analyze` calls an error of an object by itself does not
//! come into the cluster, and fields that are not honoured are told to who applies them.
//!
//! Every replica answers; the one that leads keeps the API server told of the roots that our certificates are judged by (`bundle.rs`).

mod bundle;
mod review;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use mesh_ca::ServerIdentity;
use mesh_transport::LocalAuthority;
use tokio::net::TcpListener;

pub(crate) use bundle::Bundle;

/// Whether the webhook is served.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AdmissionArgs {
    /// Serve the validating webhook at this address.
    #[arg(long, value_name = "ADDR", requires = "kubernetes")]
    pub(crate) webhook_addr: Option<SocketAddr>,
    /// The ValidatingWebhookConfiguration that is told of our roots.
    #[arg(long, value_name = "NAME", default_value = "mesh-validation")]
    pub(crate) webhook_configuration: String,
}

/// Serves the webhook, where it is asked for. Runs until dropped.
///
/// # Errors
/// The address cannot be had, or no certificate.
pub(crate) async fn serve(
    args: &AdmissionArgs,
    authority: &Arc<LocalAuthority>,
    server_name: &str,
) -> anyhow::Result<()> {
    let Some(address) = args.webhook_addr else { return std::future::pending().await };
    let identity = ServerIdentity::new(authority.clone(), server_name).context("--server-name")?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("--webhook-addr {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "validating webhook listening");
    let acceptor = server::acceptor(identity.clone()).context("TLS of the webhook")?;
    tokio::select! {
        () = server::serve(listener, acceptor) => {}
        () = identity.renew() => {}
    }
    Ok(())
}
