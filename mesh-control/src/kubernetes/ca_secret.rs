//! The authority in a Secret: made once by whichever replica is first, unpacked for [`mesh_transport::LocalAuthority`], followed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use mesh_core::TrustDomain;
use mesh_transport::CertificateAuthority;
use serde_json::json;
use tokio_stream::StreamExt as _;

use super::ClusterArgs;

/// Files of Istio's cacerts layout; every other of the Secret is passed over.
const FILES: [&str; 5] = ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem", "ca-crl.pem"];
/// The one that everybody may read.
const ROOT: &str = "root-cert.pem";
/// HTTP's word for an object that is there already.
const CONFLICT: u16 = 409;
/// Who applies the ConfigMap.
const MANAGER: &str = "mesh-control";

/// The Secret, and where its files are unpacked.
pub(crate) struct CaSecret {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    name: String,
    root_config_map: String,
    dir: PathBuf,
}

impl CaSecret {
    /// Unpacks the Secret into `dir`; makes it where there is none.
    pub(crate) async fn unpack(
        client: Client,
        args: &ClusterArgs,
        dir: &Path,
        trust_domain: &TrustDomain,
    ) -> anyhow::Result<Self> {
        let secret = Self {
            secrets: Api::namespaced(client.clone(), args.namespace()),
            config_maps: Api::namespaced(client, args.namespace()),
            name: args.ca_secret.clone(),
            root_config_map: args.root_config_map.clone(),
            dir: dir.to_owned(),
        };
        let what = || format!("Secret {}/{}", args.namespace(), args.ca_secret);
        let found = match secret.secrets.get_opt(&secret.name).await.with_context(what)? {
            Some(found) => found,
            None => secret.make(trust_domain).await.with_context(what)?,
        };
        secret.take(&found).await.with_context(what)?;
        Ok(secret)
    }

    /// Makes an authority, unless another replica is first: then that one's counts.
    async fn make(&self, trust_domain: &TrustDomain) -> anyhow::Result<Secret> {
        let authority = CertificateAuthority::generate(trust_domain, SystemTime::now())?;
        authority.write(&self.dir, true)?;
        let mut data = BTreeMap::new();
        for file in FILES.iter().filter(|file| self.dir.join(file).exists()) {
            let content = fs::read(self.dir.join(file)).with_context(|| format!("reading {file} back"))?;
            data.insert((*file).to_owned(), ByteString(content));
        }
        // What tells it from one that a person gave: only this one goes with `mesh-ctl uninstall --purge`.
        let labels = BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned())]);
        let metadata = ObjectMeta { name: Some(self.name.clone()), labels: Some(labels), ..ObjectMeta::default() };
        let secret = Secret { metadata, data: Some(data), ..Secret::default() };
        match self.secrets.create(&PostParams::default(), &secret).await {
            Ok(made) => {
                tracing::info!(secret = self.name, "certificate authority made");
                Ok(made)
            }
            Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(self.secrets.get(&self.name).await?),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts what a Secret holds into the directory, and its roots where everybody may read them.
    async fn take(&self, secret: &Secret) -> anyhow::Result<()> {
        let data = secret.data.as_ref().context("the Secret is empty")?;
        ensure!(data.contains_key("ca-key.pem"), "the Secret has no ca-key.pem");
        fs::create_dir_all(&self.dir).with_context(|| format!("making {}", self.dir.display()))?;
        for file in FILES {
            let path = self.dir.join(file);
            match data.get(file) {
                Some(content) if fs::read(&path).ok().as_ref() == Some(&content.0) => {}
                Some(content) => replace(&path, &content.0)?,
                None if path.exists() => fs::remove_file(&path).with_context(|| format!("removing {file}"))?,
                None => {}
            }
        }
        let root = data.get(ROOT).context("the Secret has no root-cert.pem")?;
        let root = std::str::from_utf8(&root.0).context("root-cert.pem is no text")?;
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.root_config_map},
            "data": {ROOT: root},
        });
        let parameters = PatchParams::apply(MANAGER).force();
        self.config_maps
            .patch(&self.root_config_map, &parameters, &Patch::Apply(&map))
            .await
            .with_context(|| format!("publishing the roots in ConfigMap {}", self.root_config_map))?;
        Ok(())
    }

    /// Follows changes of the Secret until dropped. While it is gone or wrong, the last authority signs.
    pub(crate) async fn follow(&self) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut events = pin!(watcher(self.secrets.clone(), config).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(secret) | watcher::Event::InitApply(secret)) => {
                    if let Err(error) = self.take(&secret).await {
                        tracing::error!(secret = self.name, "not taken: {error:#}; the last authority signs");
                    }
                }
                Ok(watcher::Event::Delete(_)) => {
                    tracing::error!(
                        secret = self.name,
                        "the Secret is gone; its authority signs until this process ends"
                    );
                }
                Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
                Err(error) => tracing::warn!(secret = self.name, %error, "not watched; it is tried again"),
            }
        }
    }
}

/// Replaces a file as a whole.
fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, content)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("writing {}", path.display()))
}
