//! The identities that this process speaks for, each with a certificate that is renewed in time.

mod entry;
mod renewal;
mod status;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use mesh_core::lock::UnpoisonedMutex as _;
use mesh_core::{SpiffeId, TrustDomain};
use tokio::sync::Notify;
use tokio::time::timeout;

use self::entry::Entry;
use self::status::Tally;
pub use self::status::{AuthorityStatus, CertificateStatus};
use crate::ca::CLOCK_SKEW;
use crate::certificate::WorkloadCertificate;
use crate::csr::NewKey;
use crate::source::{CertificateSource, SignError};
use crate::tls::{Carriers, TlsError, TlsIdentity};
use crate::trust::{Role, TrustFeed};
use crate::verify::VerifyError;

/// How long a workload's certificate is valid.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long a connection waits for a certificate that is not there yet.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no certificate for an identity. A later try may succeed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityFetchError {
    /// No key could be made.
    #[error("no key for {identity}: {source}")]
    Key {
        /// For whom.
        identity: SpiffeId,
        /// What the cryptographic library said.
        source: rcgen::Error,
    },
    /// The source did not sign.
    #[error("no certificate for {identity}: {source}")]
    Sign {
        /// For whom.
        identity: SpiffeId,
        /// What the authority said.
        source: SignError,
    },
    /// What the source signed is not what was asked for, or its own roots do not vouch for it.
    #[error("the CA's certificate for {identity} is not usable: {source}")]
    Answer {
        /// For whom.
        identity: SpiffeId,
        /// What is wrong with it.
        source: VerifyError,
    },
    /// This machine's clock and the authority's are too far apart.
    #[error(
        "the CA's certificate for {identity} is not valid by this node's clock, which is {behind} s behind the CA's (or ahead, \
         if negative): set the clock"
    )]
    Clock {
        /// For whom.
        identity: SpiffeId,
        /// By how many seconds the clock is behind.
        behind: i64,
    },
    /// TLS cannot use the certificate.
    #[error(transparent)]
    Unusable(#[from] TlsError),
    /// There was none within the time that a connection waits.
    #[error("no certificate for {identity} within {} s; the last attempt: {last}", limit.as_secs_f32())]
    TimedOut {
        /// For whom.
        identity: SpiffeId,
        /// How long the connection waited.
        limit: Duration,
        /// How the last attempt ended.
        last: String,
    },
}

/// What holds for all identities of a process.
#[derive(Debug, Clone)]
pub struct IdentitySettings {
    /// Peers have to be of this trust domain.
    pub trust_domain: TrustDomain,
    /// How long certificates are asked to live.
    pub lifetime: Duration,
    /// What tunnels are carried by.
    pub carriers: Carriers,
    /// How long a connection waits for a certificate that is not there yet.
    pub patience: Duration,
}

impl IdentitySettings {
    /// The defaults for a trust domain.
    #[must_use]
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self { trust_domain, lifetime: CERTIFICATE_LIFETIME, carriers: Carriers::default(), patience: PATIENCE }
    }
}

/// A cache of [`TlsIdentity`]s over one source. Clones share it, threads too.
#[derive(Clone)]
pub struct Identities(Arc<Inner>);

struct Inner {
    source: Arc<dyn CertificateSource>,
    trust: TrustFeed,
    settings: IdentitySettings,
    entries: Mutex<HashMap<SpiffeId, Arc<Entry>>>,
    /// Something is to be done by [`Identities::run`].
    changed: Notify,
    tally: Tally,
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities").field("source", &self.0.source).finish_non_exhaustive()
    }
}

impl Identities {
    /// An empty store.
    #[must_use]
    pub fn new(source: Arc<dyn CertificateSource>, settings: IdentitySettings) -> Self {
        Self(Arc::new(Inner {
            trust: source.trust(),
            source,
            settings,
            entries: Mutex::default(),
            changed: Notify::new(),
            tally: Tally::default(),
        }))
    }

    /// Whom to trust, now and later.
    #[must_use]
    pub fn trust(&self) -> TrustFeed {
        self.0.trust.clone()
    }

    /// The identity's certificate, from the cache while it is valid. The configurations of one certificate are shared.
    ///
    /// Where there is none, the caller waits for one, for as long as the settings say.
    ///
    /// # Errors
    /// [`IdentityFetchError::TimedOut`], with the reason of the last attempt.
    pub async fn fetch(&self, identity: &SpiffeId) -> Result<Arc<TlsIdentity>, IdentityFetchError> {
        let entry = self.entry(identity);
        if let Some(current) = self.valid(&entry) {
            return Ok(current);
        }
        let limit = self.0.settings.patience;
        timeout(limit, self.obtain(identity, &entry)).await.map_err(|_| {
            let last = entry.last_error().unwrap_or_else(|| "the CA has not answered".to_owned());
            IdentityFetchError::TimedOut { identity: identity.clone(), limit, last }
        })
    }

    /// Holds certificates for these identities and no other: those that are missing are fetched by [`Identities::run`].
    pub fn hold(&self, identities: &HashSet<SpiffeId>) {
        let mut entries = self.0.entries.lock_unpoisoned();
        entries.retain(|identity, _| identities.contains(identity));
        for identity in identities {
            if !entries.contains_key(identity) {
                entries.insert(identity.clone(), Arc::default());
                self.0.changed.notify_one();
            }
        }
    }

    fn entry(&self, identity: &SpiffeId) -> Arc<Entry> {
        self.0.entries.lock_unpoisoned().entry(identity.clone()).or_default().clone()
    }

    /// The entry's certificate if it may be shown now, with the trust bundle that is in force now.
    fn valid(&self, entry: &Entry) -> Option<Arc<TlsIdentity>> {
        let peers = self.0.trust.borrow().clone();
        entry.valid(&peers, SystemTime::now())
    }

    /// Tries until there is a certificate. One caller at a time does; the others wait for its result.
    async fn obtain(&self, identity: &SpiffeId, entry: &Entry) -> Arc<TlsIdentity> {
        let _one = entry.fetching.lock().await;
        loop {
            if let Some(current) = self.valid(entry) {
                return current;
            }
            if let Some(pause) = entry.pause(SystemTime::now()) {
                tokio::time::sleep(pause).await;
            }
            self.attempt(identity, entry).await;
        }
    }

    /// One attempt at a new certificate, and what follows from its result. The caller holds the entry's lock.
    async fn attempt(&self, identity: &SpiffeId, entry: &Entry) {
        match self.issue(identity).await {
            Ok(issued) => {
                self.0.tally.succeeded();
                if entry.succeeded(issued, &self.0.trust.borrow(), SystemTime::now()) {
                    tracing::info!(%identity, "certificate obtained after earlier attempts had failed");
                }
            }
            Err(error) => {
                self.0.tally.failed(&error);
                let text = error.to_string();
                if entry.failed(&text, SystemTime::now()) {
                    tracing::warn!(%identity, error = text, "no new certificate; one that is held stays until it expires");
                }
            }
        }
        self.0.changed.notify_one();
    }

    /// Makes a key, has it signed and checks the answer as a peer would.
    async fn issue(&self, identity: &SpiffeId) -> Result<Arc<TlsIdentity>, IdentityFetchError> {
        let named = || identity.clone();
        let new = NewKey::generate(identity).map_err(|source| IdentityFetchError::Key { identity: named(), source })?;
        let signed = self.0.source.sign(&new.request, identity, self.0.settings.lifetime).await;
        let signed = signed.map_err(|source| IdentityFetchError::Sign { identity: named(), source })?;
        let answer = |source| IdentityFetchError::Answer { identity: named(), source };
        let certificate = WorkloadCertificate::new(named(), signed.chain, new.key).map_err(answer)?;
        let now = SystemTime::now();
        let behind = seconds_between(now, certificate.not_before + CLOCK_SKEW);
        self.0.tally.clock_is_behind(behind);
        if now < certificate.not_before || certificate.not_after <= now {
            return Err(IdentityFetchError::Clock { identity: named(), behind });
        }
        let peers = self.0.trust.borrow().clone();
        let (leaf, intermediates) = certificate.chain.split_at(1);
        // A chain that our own roots do not vouch for is not shown to anybody.
        peers.verify_chain(Role::Client, &leaf[0], intermediates, now).map_err(answer)?;
        let settings = &self.0.settings;
        Ok(Arc::new(TlsIdentity::new(certificate, peers, &settings.trust_domain, settings.carriers)?))
    }
}

/// From `earlier` to `later`, negative the other way round.
fn seconds_between(earlier: SystemTime, later: SystemTime) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match later.duration_since(earlier) {
        Ok(ahead) => seconds(ahead),
        Err(error) => -seconds(error.duration()),
    }
}

#[cfg(test)]
mod tests;
