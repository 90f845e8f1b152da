//! Which authority a program gets its certificates from: one in a directory, or one over the network.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use mesh_transport::{CaError, CertificateSource, LocalAuthority};
use rustls_pki_types::ServerName;

use crate::client::CaClient;

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The directory does not hold one.
    #[error(transparent)]
    Directory(#[from] CaError),
    /// A file is missing or is not what it should be.
    #[error("{path}: {problem}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The name is none.
    #[error("{0:?} is no DNS name")]
    Name(String),
}

/// How a CA over the network is reached.
#[derive(Debug, Clone)]
pub struct RemoteSettings {
    /// `HOST:PORT`
    pub address: String,
    /// The DNS name in its certificate.
    pub name: String,
    /// File with the roots that its own certificate is judged by; read anew for each connection.
    pub root: PathBuf,
    /// File with the bearer token; read anew for each request.
    pub token: PathBuf,
}

/// The authority of a program, and what keeps it current.
#[derive(Debug, Clone)]
pub enum Authority {
    /// In a directory, whose key this process holds.
    Local(Arc<LocalAuthority>),
    /// Over the network.
    Remote(Arc<CaClient>),
}

impl Authority {
    /// The authority in `dir`.
    ///
    /// # Errors
    /// When the directory does not hold one.
    pub fn local(dir: &Path) -> Result<Self, AuthorityError> {
        Ok(Self::Local(Arc::new(LocalAuthority::open(dir, SystemTime::now())?)))
    }

    /// The authority at an address. That it answers is not needed now; that the files are there is.
    ///
    /// # Errors
    /// When a file is missing or wrong.
    pub fn remote(settings: &RemoteSettings) -> Result<Self, AuthorityError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|error| AuthorityError::File { path: path.to_owned(), problem: error.to_string() })
        };
        crate::wire::certificates(&read(&settings.root)?)
            .map_err(|problem| AuthorityError::File { path: settings.root.clone(), problem })?;
        read(&settings.token)?;
        let name = ServerName::try_from(settings.name.clone());
        let name = name.map_err(|_| AuthorityError::Name(settings.name.clone()))?;
        Ok(Self::Remote(Arc::new(CaClient::new(settings, name))))
    }

    /// What signs.
    #[must_use]
    pub fn source(&self) -> Arc<dyn CertificateSource> {
        match self {
            Self::Local(authority) => authority.clone(),
            Self::Remote(client) => client.clone(),
        }
    }

    /// Follows changes of whom to trust, and of who signs. Runs until dropped.
    pub async fn follow(&self) {
        match self {
            Self::Local(authority) => authority.follow().await,
            Self::Remote(client) => client.follow().await,
        }
    }
}
