//! An authority in a directory, followed: what changes there takes effect without a restart.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use mesh_core::SpiffeId;
use mesh_core::lock::UnpoisonedRwLock as _;
use tokio::sync::watch;

use super::{CaError, CertificateAuthority};
use crate::cacerts;
use crate::csr::CertificateRequest;
use crate::source::{CertificateSource, SignError, Signing};
use crate::trust::{PeerVerifier, TrustFeed};

/// How often the files are looked at: five calls of stat(), which also notice what inotify does not (a mounted Secret whose
/// directory is swapped, a network file system). A revocation has to end tunnels within a second.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The authority in force, and the trust bundle that it publishes.
pub struct LocalAuthority {
    directory: Option<PathBuf>,
    current: RwLock<Arc<CertificateAuthority>>,
    trust: watch::Sender<Arc<PeerVerifier>>,
}

impl fmt::Debug for LocalAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalAuthority").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl LocalAuthority {
    /// Reads the authority in `dir`. [`LocalAuthority::follow`] keeps it current.
    ///
    /// # Errors
    /// See [`CertificateAuthority::load`].
    pub fn open(dir: &Path, now: SystemTime) -> Result<Self, CaError> {
        Self::holding(CertificateAuthority::load(dir, now)?, Some(dir.to_owned()))
    }

    /// One that does not change.
    ///
    /// # Errors
    /// When its trust bundle cannot be used.
    pub fn fixed(authority: CertificateAuthority) -> Result<Self, CaError> {
        Self::holding(authority, None)
    }

    fn holding(authority: CertificateAuthority, directory: Option<PathBuf>) -> Result<Self, CaError> {
        let trust = PeerVerifier::new(authority.trust().clone()).map_err(CaError::Chain)?;
        let (current, trust) = (RwLock::new(Arc::new(authority)), watch::Sender::new(Arc::new(trust)));
        Ok(Self { directory, current, trust })
    }

    /// The authority in force now.
    #[must_use]
    pub fn current(&self) -> Arc<CertificateAuthority> {
        self.current.read_unpoisoned().clone()
    }

    /// Follows the directory until dropped. While it cannot be read as a whole, what it said last stays in force.
    pub async fn follow(&self) {
        let Some(dir) = &self.directory else { return std::future::pending().await };
        // What changed since it was opened is found by the first look.
        let mut seen = None;
        let mut told = None;
        loop {
            let state = state(dir);
            if seen.as_ref() != Some(&state) {
                match CertificateAuthority::load(dir, SystemTime::now()) {
                    Ok(authority) => {
                        self.replace(authority);
                        (seen, told) = (Some(state), None);
                    }
                    // Files are replaced one by one: an error counts when it is still there at the next look.
                    Err(error) if told.as_ref() == Some(&state) => {
                        tracing::error!(dir = %dir.display(), %error, "certificate authority not read; the last one stays in force");
                        seen = Some(state);
                    }
                    Err(_) => told = Some(state),
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn replace(&self, authority: CertificateAuthority) {
        let trust = authority.trust().clone();
        let verifier = match PeerVerifier::new(trust.clone()) {
            Ok(verifier) => Arc::new(verifier),
            Err(error) => {
                tracing::error!(%error, "trust bundle not usable; the last one stays in force");
                return;
            }
        };
        let (roots, lists, signer) = (trust.roots.len(), trust.crls.len(), authority.signer());
        // First the authority: whoever learns of the new trust may ask for a certificate at once.
        *self.current.write_unpoisoned() = Arc::new(authority);
        let changed = self.trust.send_if_modified(|current| {
            let differs = *current.bundle() != trust;
            if differs {
                *current = verifier;
            }
            differs
        });
        if changed {
            tracing::info!(roots, lists, %signer, "certificate authority in force");
        }
    }
}

impl CertificateSource for LocalAuthority {
    fn sign<'a>(&'a self, request: &'a str, identity: &'a SpiffeId, lifetime: Duration) -> Signing<'a> {
        Box::pin(async move {
            let request = CertificateRequest::from_pem(request).map_err(CaError::from)?;
            self.current().sign(&request, identity, lifetime, SystemTime::now()).map_err(SignError::from)
        })
    }

    fn trust(&self) -> TrustFeed {
        self.trust.subscribe()
    }
}

/// What tells one version of the files from another: which file, when it was changed, how long it is.
type State = [Option<(u64, i64, i64, u64)>; cacerts::ALL.len()];

fn state(dir: &Path) -> State {
    cacerts::ALL.map(|file| {
        let file = fs::metadata(dir.join(file)).ok()?;
        Some((file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
    })
}
