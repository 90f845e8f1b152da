//! The way to the API server.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// Why there is no way to the API server. That it answers is not needed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file does not say how to reach it.
    #[error("the kubeconfig {path} cannot be used: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// This process does not run in a pod.
    #[error("this is no pod of a cluster ({0}); name a kubeconfig with --kubeconfig")]
    NotInCluster(#[source] Box<kube::config::InClusterError>),
    /// TLS or an address cannot be set up.
    #[error("the API server cannot be spoken to: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// A client by a kubeconfig, or by the service account of the pod that this process runs in.
///
/// # Errors
/// See [`ClientError`].
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let config = match kubeconfig {
        Some(path) => {
            let failed = |source| ClientError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?
        }
        None => Config::incluster().map_err(|error| ClientError::NotInCluster(Box::new(error)))?,
    };
    Client::try_from(config).map_err(|error| ClientError::Client(Box::new(error)))
}
