//! The roots that the API server judges our certificate by, in the webhook's configuration: put there, and put back.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use mesh_transport::{CertificateSource as _, LocalAuthority};
use serde_json::json;
use tokio_stream::StreamExt as _;

/// How long until another try where the API server does not take it.
const AGAIN: Duration = Duration::from_secs(3);

/// Follows one configuration and the roots.
pub(crate) struct Bundle {
    configurations: Api<ValidatingWebhookConfiguration>,
    name: String,
    authority: Arc<LocalAuthority>,
    /// The file with them.
    roots: PathBuf,
}

impl Bundle {
    pub(crate) fn new(client: Client, name: String, authority: Arc<LocalAuthority>, roots: PathBuf) -> Self {
        Self { configurations: Api::all(client), name, authority, roots }
    }

    /// Runs until dropped.
    pub(crate) async fn follow(&self) {
        let only = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut seen = pin!(watcher(self.configurations.clone(), only).default_backoff().applied_objects());
        let mut trust = self.authority.trust();
        let mut current: Option<ValidatingWebhookConfiguration> = None;
        loop {
            let written = match &current {
                Some(configuration) => self.tell(configuration).await,
                None => true,
            };
            tokio::select! {
                event = seen.next() => match event {
                    Some(Ok(configuration)) => current = Some(configuration),
                    Some(Err(error)) => tracing::warn!(%error, name = self.name, "the webhook's configuration is not followed"),
                    None => return,
                },
                changed = trust.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(AGAIN), if !written => {}
            }
        }
    }

    /// Writes the roots where others are there; false where that failed.
    async fn tell(&self, configuration: &ValidatingWebhookConfiguration) -> bool {
        let roots = match tokio::fs::read(&self.roots).await {
            Ok(roots) => ByteString(roots),
            Err(error) => {
                tracing::warn!(%error, file = %self.roots.display(), "the roots cannot be read");
                return false;
            }
        };
        let webhooks = configuration.webhooks.iter().flatten();
        let stale = webhooks.filter(|webhook| webhook.client_config.ca_bundle.as_ref() != Some(&roots));
        let patched: Vec<_> =
            stale.map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": roots}})).collect();
        if patched.is_empty() {
            return true;
        }
        let patch = Patch::Strategic(json!({"webhooks": patched}));
        match self.configurations.patch(&self.name, &PatchParams::default(), &patch).await {
            Ok(_) => {
                tracing::info!(name = self.name, "the API server is told of the webhook's roots");
                true
            }
            Err(error) => {
                tracing::warn!(%error, name = self.name, "the API server is not told of the webhook's roots");
                false
            }
        }
    }
}
