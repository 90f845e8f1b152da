//! The identities that this process speaks for, each with a certificate that is renewed in time.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use mesh_core::{SpiffeId, TrustDomain};
use tokio::sync::Notify;

use crate::ca::{CaError, CertificateAuthority};
use crate::certificate::WorkloadCertificate;
use crate::tls::{Carriers, TlsError, TlsIdentity};

/// How long a workload's certificate is valid.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long after a failed renewal the next attempt follows.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// The longest sleep of the renewal task, so that a clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Where certificates come from.
#[derive(Debug)]
pub enum CertificateSource {
    /// An authority in this process.
    Embedded(Box<CertificateAuthority>),
}

impl CertificateSource {
    async fn issue(
        &self,
        identity: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<WorkloadCertificate, CaError> {
        match self {
            Self::Embedded(authority) => authority.issue(identity, lifetime, now),
        }
    }
}

/// Why there is no certificate for an identity. A later try may succeed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityFetchError {
    /// The source did not sign.
    #[error("no certificate for {identity}: {source}")]
    Issue {
        /// For whom.
        identity: SpiffeId,
        /// What the authority said.
        source: CaError,
    },
    /// What the source signed cannot be used.
    #[error(transparent)]
    Unusable(#[from] TlsError),
}

/// A cache of [`TlsIdentity`]s over one source. Shared by threads behind an [`Arc`].
#[derive(Debug)]
pub struct Identities {
    source: CertificateSource,
    trust_domain: TrustDomain,
    lifetime: Duration,
    carriers: Carriers,
    entries: Mutex<HashMap<SpiffeId, Arc<Entry>>>,
    changed: Notify,
}

/// What is known of one identity. The async lock lets one caller at a time fetch, while others wait for its result.
#[derive(Debug, Default)]
struct Entry {
    current: Mutex<Option<Held>>,
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Held {
    identity: Arc<TlsIdentity>,
    renew_at: SystemTime,
}

impl Identities {
    /// An empty store; peers have to be of `trust_domain`.
    #[must_use]
    pub fn new(source: CertificateSource, trust_domain: TrustDomain) -> Self {
        Self {
            source,
            trust_domain,
            lifetime: CERTIFICATE_LIFETIME,
            carriers: Carriers::default(),
            entries: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// The same with certificates that live for `lifetime`.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// The same with tunnels carried only by `carriers`.
    #[must_use]
    pub fn with_carriers(mut self, carriers: Carriers) -> Self {
        self.carriers = carriers;
        self
    }

    /// The identity's certificate, from the cache while it is valid. The configurations of one certificate are shared.
    ///
    /// # Errors
    /// When the source does not sign, or signs something unusable.
    pub async fn fetch(&self, identity: &SpiffeId) -> Result<Arc<TlsIdentity>, IdentityFetchError> {
        let entry = lock(&self.entries).entry(identity.clone()).or_default().clone();
        if let Some(valid) = entry.valid(SystemTime::now()) {
            return Ok(valid);
        }
        let _one = entry.fetching.lock().await;
        if let Some(valid) = entry.valid(SystemTime::now()) {
            return Ok(valid);
        }
        let held = self.issue(identity).await?;
        *lock(&entry.current) = Some(held.clone());
        self.changed.notify_one();
        Ok(held.identity)
    }

    /// Forgets every identity that is not in `keep`.
    pub fn retain(&self, keep: &HashSet<SpiffeId>) {
        lock(&self.entries).retain(|identity, _| keep.contains(identity));
    }

    /// The certificates held now, for a status page.
    #[must_use]
    pub fn current(&self) -> Vec<Arc<TlsIdentity>> {
        let entries = lock(&self.entries);
        let held = entries.values().filter_map(|entry| lock(&entry.current).clone());
        held.map(|held| held.identity).collect()
    }

    /// Renews certificates when about half of their life is over. Runs until it is dropped.
    pub async fn run_renewal(&self) {
        loop {
            let now = SystemTime::now();
            let next = self.renew_due(now).await;
            let sleep = next
                .map_or(LONGEST_SLEEP, |at| at.duration_since(now).unwrap_or(Duration::ZERO))
                .clamp(Duration::from_millis(100), LONGEST_SLEEP);
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Renews what is due and returns when the next one will be.
    async fn renew_due(&self, now: SystemTime) -> Option<SystemTime> {
        let entries: Vec<_> = lock(&self.entries).iter().map(|(id, entry)| (id.clone(), entry.clone())).collect();
        let mut next = None;
        for (identity, entry) in entries {
            let Some(due) = lock(&entry.current).as_ref().map(|held| held.renew_at) else {
                continue;
            };
            let due = if due > now { due } else { self.renew(&identity, &entry, now).await };
            next = Some(next.map_or(due, |next: SystemTime| next.min(due)));
        }
        next
    }

    async fn renew(&self, identity: &SpiffeId, entry: &Entry, now: SystemTime) -> SystemTime {
        let _one = entry.fetching.lock().await;
        let (renewed, renew_at) = match self.issue(identity).await {
            Ok(held) => (Some(held.identity), held.renew_at),
            Err(error) => {
                tracing::warn!(%identity, %error, "certificate not renewed; the old one stays until it expires");
                (None, now + RETRY_AFTER)
            }
        };
        if let Some(held) = lock(&entry.current).as_mut() {
            held.renew_at = renew_at;
            if let Some(renewed) = renewed {
                held.identity = renewed;
            }
        }
        renew_at
    }

    async fn issue(&self, identity: &SpiffeId) -> Result<Held, IdentityFetchError> {
        let now = SystemTime::now();
        let certificate = self
            .source
            .issue(identity, self.lifetime, now)
            .await
            .map_err(|source| IdentityFetchError::Issue { identity: identity.clone(), source })?;
        let tls = TlsIdentity::new(certificate, &self.trust_domain, self.carriers)?;
        let life = tls.not_after.duration_since(now).unwrap_or(Duration::ZERO);
        // Half of the life, give or take a tenth of it, so that a node's certificates do not renew all at once.
        let share = 0.4 + 0.2 * fastrand::f64();
        Ok(Held { identity: Arc::new(tls), renew_at: now + life.mul_f64(share) })
    }
}

impl Entry {
    fn valid(&self, now: SystemTime) -> Option<Arc<TlsIdentity>> {
        let current = lock(&self.current);
        current.as_ref().filter(|held| held.identity.not_after > now).map(|held| held.identity.clone())
    }
}

/// A panic elsewhere leaves maps that are whole: every change of them is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Identities {
        let domain = TrustDomain::default();
        let authority = CertificateAuthority::generate(&domain, SystemTime::now()).expect("authority");
        Identities::new(CertificateSource::Embedded(Box::new(authority)), domain)
    }

    fn cart() -> SpiffeId {
        SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").expect("valid")
    }

    #[tokio::test]
    async fn a_certificate_is_made_once_and_shared() {
        let store = store();
        let (a, b) = (store.fetch(&cart()).await.unwrap(), store.fetch(&cart()).await.unwrap());
        assert!(Arc::ptr_eq(&a, &b));
    }

    #[tokio::test]
    async fn a_due_certificate_is_renewed_and_the_next_renewal_lies_within_its_life() {
        let store = store();
        let old = store.fetch(&cart()).await.unwrap();
        let later = SystemTime::now() + CERTIFICATE_LIFETIME.mul_f64(0.61);
        let next = store.renew_due(later).await.unwrap();
        let new = store.fetch(&cart()).await.unwrap();
        assert!(!Arc::ptr_eq(&old, &new));
        assert!(next < new.not_after);
    }

    #[tokio::test]
    async fn a_fresh_certificate_is_not_renewed() {
        let store = store();
        let old = store.fetch(&cart()).await.unwrap();
        store.renew_due(SystemTime::now()).await;
        assert!(Arc::ptr_eq(&old, &store.fetch(&cart()).await.unwrap()));
    }

    #[tokio::test]
    async fn identities_not_retained_are_forgotten() {
        let store = store();
        store.fetch(&cart()).await.unwrap();
        store.retain(&HashSet::new());
        assert!(store.current().is_empty());
    }
}
