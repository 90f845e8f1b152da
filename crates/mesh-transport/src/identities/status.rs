//! What a person and a metric are told of certificates and of their authority.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::SystemTime;

use mesh_core::SpiffeId;
use mesh_core::lock::UnpoisonedMutex as _;

use super::{Identities, IdentityFetchError};
use crate::source::SignError;
use crate::trust::Fingerprint;

/// A clock that is off by more is told of, in seconds. Certificates begin two minutes in the past to allow for it.
const TOLERANCE: i64 = 30;

/// One identity of this process.
#[derive(Debug, Clone)]
pub struct CertificateStatus {
    /// Who.
    pub identity: SpiffeId,
    /// The certificate's serial number as hexadecimal digits, without a certificate `None`, as are its times.
    pub serial: Option<String>,
    /// Start of its validity.
    pub not_before: Option<SystemTime>,
    /// End of its validity.
    pub not_after: Option<SystemTime>,
    /// When the next attempt at a new one is due; `None`: now.
    pub next_renewal: Option<SystemTime>,
    /// How the last attempt failed, if it did.
    pub last_error: Option<String>,
    /// The roots that its peers are judged by.
    pub root_fingerprints: Vec<Fingerprint>,
}

/// The authority, as this process knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuthorityStatus {
    /// Certificates obtained.
    pub renewed: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Whether the last attempt had an answer, be it a refusal; `None` before the first.
    pub is_reachable: Option<bool>,
    /// By how many seconds this machine's clock is behind the authority's; negative when it is ahead.
    pub clock_behind: i64,
}

impl Identities {
    /// Every identity that is held, by name.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let roots: Vec<_> = self.0.trust.borrow().bundle().roots.iter().map(Fingerprint::of).collect();
        let status = |(identity, entry): (SpiffeId, std::sync::Arc<super::Entry>)| {
            let held = entry.certificate();
            CertificateStatus {
                identity,
                serial: held.as_ref().map(|held| held.serial.clone()),
                not_before: held.as_ref().map(|held| held.not_before),
                not_after: held.as_ref().map(|held| held.not_after),
                next_renewal: entry.next_attempt(),
                last_error: entry.last_error(),
                root_fingerprints: roots.clone(),
            }
        };
        let mut all: Vec<_> = self.all().into_iter().map(status).collect();
        all.sort_by(|a, b| a.identity.cmp(&b.identity));
        all
    }

    /// The authority.
    #[must_use]
    pub fn authority(&self) -> AuthorityStatus {
        self.0.tally.status()
    }
}

/// Counts attempts, and tells once of each change for the worse or the better.
#[derive(Debug, Default)]
pub(super) struct Tally {
    renewed: AtomicU64,
    failed: AtomicU64,
    clock_behind: AtomicI64,
    is_reachable: Mutex<Option<bool>>,
}

impl Tally {
    pub(super) fn succeeded(&self) {
        self.renewed.fetch_add(1, Ordering::Relaxed);
        if self.reached(true) == Some(false) {
            tracing::info!("the CA answers again");
        }
    }

    pub(super) fn failed(&self, error: &IdentityFetchError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        if let IdentityFetchError::Sign { source: SignError::Clock { behind, .. }, .. } = error {
            self.clock_is_behind(*behind);
        }
        let is_reachable = !matches!(error, IdentityFetchError::Sign { source: SignError::Unreachable { .. }, .. });
        if self.reached(is_reachable) != Some(is_reachable) && !is_reachable {
            tracing::warn!(%error, "the CA does not answer: certificates that are held serve until they expire");
        }
    }

    pub(super) fn clock_is_behind(&self, seconds: i64) {
        let before = self.clock_behind.swap(seconds, Ordering::Relaxed);
        let is_off = |seconds: i64| seconds.abs() > TOLERANCE;
        if is_off(seconds) && !is_off(before) {
            tracing::warn!(seconds, "this machine's clock is behind the CA's (ahead, if negative): set it");
        } else if !is_off(seconds) && is_off(before) {
            tracing::info!(seconds, "this machine's clock and the CA's agree again");
        }
    }

    /// Notes whether the authority answered and returns what was so before.
    fn reached(&self, is_reachable: bool) -> Option<bool> {
        self.is_reachable.lock_unpoisoned().replace(is_reachable)
    }

    fn status(&self) -> AuthorityStatus {
        AuthorityStatus {
            renewed: self.renewed.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            is_reachable: *self.is_reachable.lock_unpoisoned(),
            clock_behind: self.clock_behind.load(Ordering::Relaxed),
        }
    }
}
