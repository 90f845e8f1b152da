//! What is known of one identity: its certificate, and when the next attempt at a new one is due.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use mesh_core::lock::UnpoisonedMutex as _;

use crate::tls::TlsIdentity;
use crate::trust::{Fingerprint, PeerVerifier, Role};

/// The pause after a first failure; it doubles with each one that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Within what share of its life a certificate is replaced that a former signer signed, so that not all are at once.
const SPREAD: f64 = 0.05;
const LONGEST_SPREAD: Duration = Duration::from_secs(30);

/// The async lock lets one caller at a time fetch, while others wait for its result.
#[derive(Default)]
pub(super) struct Entry {
    state: Mutex<State>,
    pub(super) fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// When the next attempt is due; `None`: now.
    next: Option<SystemTime>,
    failures: u32,
    last_error: Option<String>,
}

struct Held {
    identity: Arc<TlsIdentity>,
    /// Who signed it, where known.
    signer: Option<Fingerprint>,
    /// Whether peers that share our trust bundle would accept it.
    is_trusted: bool,
}

impl Entry {
    /// The certificate, if it may be shown at `now` to peers who judge like `peers`.
    pub(super) fn valid(&self, peers: &Arc<PeerVerifier>, now: SystemTime) -> Option<Arc<TlsIdentity>> {
        let mut state = self.state.lock_unpoisoned();
        state.judge(peers, now);
        let held = state.held.as_ref()?;
        let in_time = held.identity.not_before <= now && now < held.identity.not_after;
        (held.is_trusted && in_time).then(|| held.identity.clone())
    }

    /// Brings the entry in line with a trust bundle, and returns when the next attempt is due; `None` for now.
    pub(super) fn next_due(&self, peers: &Arc<PeerVerifier>, now: SystemTime) -> Option<SystemTime> {
        let mut state = self.state.lock_unpoisoned();
        state.judge(peers, now);
        let expires = state.held.as_ref().map(|held| held.identity.not_after);
        // A clock that was set may have left the attempt far in the future.
        match (state.next, expires) {
            (Some(next), Some(expires)) if state.failures == 0 => Some(next.min(expires)),
            (Some(next), _) if state.failures > 0 && next > now + LONGEST_PAUSE => None,
            (next, _) => next,
        }
        .filter(|next| *next > now)
    }

    /// How long to wait before the next attempt for somebody who needs a certificate now.
    pub(super) fn pause(&self, now: SystemTime) -> Option<Duration> {
        let state = self.state.lock_unpoisoned();
        let next = state.next.filter(|_| state.failures > 0);
        next.and_then(|next| next.duration_since(now).ok()).map(|pause| pause.min(LONGEST_PAUSE))
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.state.lock_unpoisoned().last_error.clone()
    }

    pub(super) fn certificate(&self) -> Option<Arc<TlsIdentity>> {
        self.state.lock_unpoisoned().held.as_ref().map(|held| held.identity.clone())
    }

    pub(super) fn next_attempt(&self) -> Option<SystemTime> {
        self.state.lock_unpoisoned().next
    }

    /// Takes a new certificate in. True when it ends a row of failures.
    pub(super) fn succeeded(&self, identity: Arc<TlsIdentity>, peers: &PeerVerifier, now: SystemTime) -> bool {
        let mut state = self.state.lock_unpoisoned();
        let life = identity.not_after.duration_since(now).unwrap_or(Duration::ZERO);
        // Half of the life, give or take a tenth of it, so that a node's certificates do not renew all at once.
        state.next = Some(now + life.mul_f64(0.4 + 0.2 * fastrand::f64()));
        state.held = Some(Held { identity, signer: peers.bundle().signer, is_trusted: true });
        state.failures = 0;
        state.last_error.take().is_some()
    }

    /// Notes a failed attempt. True when it failed in another way than the one before.
    pub(super) fn failed(&self, error: &str, now: SystemTime) -> bool {
        let mut state = self.state.lock_unpoisoned();
        let pause = FIRST_PAUSE.saturating_mul(1 << state.failures.min(16)).min(LONGEST_PAUSE);
        // At least half of it, so that nodes that lost their CA together do not come back together.
        state.next = Some(now + pause.mul_f64(0.5 + 0.5 * fastrand::f64()));
        state.failures += 1;
        let is_new = state.last_error.as_deref() != Some(error);
        state.last_error = Some(error.to_owned());
        is_new
    }
}

impl State {
    /// Puts another trust bundle in force for the certificate that is held.
    fn judge(&mut self, peers: &Arc<PeerVerifier>, now: SystemTime) {
        let Some(held) = &mut self.held else { return };
        if Arc::ptr_eq(held.identity.peers(), peers) {
            return;
        }
        match held.identity.with_peers(peers.clone()) {
            Ok(rebuilt) => held.identity = Arc::new(rebuilt),
            Err(error) => {
                tracing::error!(%error, "certificate dropped: it does not go with the new trust bundle");
                self.held = None;
                self.next = None;
                return;
            }
        }
        let (leaf, intermediates) = held.identity.chain().split_at(1);
        held.is_trusted = peers.verify_chain(Role::Client, &leaf[0], intermediates, now).is_ok();
        if !held.is_trusted {
            self.next = None;
        } else if peers.bundle().signer.is_some() && peers.bundle().signer != held.signer {
            let life = held.identity.not_after.duration_since(now).unwrap_or(Duration::ZERO);
            let spread = life.mul_f64(SPREAD).min(LONGEST_SPREAD).mul_f64(fastrand::f64());
            self.next = Some(self.next.map_or(now, |next| next.min(now + spread)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::TrustBundle;

    #[test]
    fn a_failed_attempt_is_made_again_soon_though_the_clock_is_set_back() {
        let (entry, now) = (Entry::default(), SystemTime::now());
        let authority =
            crate::ca::CertificateAuthority::generate(&mesh_core::TrustDomain::default(), now).expect("made");
        let bundle = TrustBundle::of_roots(authority.roots().into());
        let peers = Arc::new(PeerVerifier::new(bundle).expect("usable"));
        entry.failed("by a clock that is a year ahead", now + Duration::from_secs(365 * 24 * 3600));
        assert_eq!(entry.next_due(&peers, now), None, "now");
        entry.failed("by the right one", now);
        let next = entry.next_due(&peers, now).expect("after a pause");
        assert!(next <= now + LONGEST_PAUSE);
    }
}
