//! A peer's certificates, kept for as long as its connection lives, so that they can be judged again.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use mesh_core::lock::UnpoisonedMutex as _;
use rustls_pki_types::CertificateDer;

use crate::trust::{PeerVerifier, Role};
use crate::verify::VerifyError;

/// The most that intermediates may take, in bytes: what a peer can make us hold beside its leaf.
const MAX_INTERMEDIATES: usize = 16 << 10;
/// Different sets of intermediates that are shared; a mesh has a handful.
const MAX_SHARED: usize = 64;

type Intermediates = [CertificateDer<'static>];

/// What the peer showed in the handshake.
pub(crate) struct PeerChain {
    role: Role,
    leaf: CertificateDer<'static>,
    intermediates: Arc<Intermediates>,
    /// When it was verified. A certificate that ends later ends no connection.
    shown_at: SystemTime,
    /// The leaf's end; only clients ask, for what they pool.
    not_after: Option<SystemTime>,
}

impl PeerChain {
    pub(super) fn new(role: Role, shown: &[CertificateDer<'_>]) -> Result<Option<Self>, VerifyError> {
        let Some((leaf, intermediates)) = shown.split_first() else { return Ok(None) };
        let length: usize = intermediates.iter().map(|certificate| certificate.len()).sum();
        if length > MAX_INTERMEDIATES {
            return Err(VerifyError::Unreadable(format!("its intermediates have {length} bytes")));
        }
        let leaf = leaf.clone().into_owned();
        let not_after = if role == Role::Server { Some(end_of(&leaf)?) } else { None };
        Ok(Some(Self { role, leaf, intermediates: shared(intermediates), shown_at: SystemTime::now(), not_after }))
    }

    pub(crate) fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// Whether the certificate's validity is over. What runs may go on; nothing new should begin: a root is retired when the
    /// certificates that it vouched for have ended, and whoever is pooled beyond would be cut then.
    pub(crate) fn has_ended(&self, now: SystemTime) -> bool {
        self.not_after.is_some_and(|end| end <= now)
    }

    /// Whether it would be accepted by another judge than the one that it met.
    pub(crate) fn verify(&self, judge: &PeerVerifier) -> Result<(), VerifyError> {
        judge.verify_chain(self.role, &self.leaf, &self.intermediates, self.shown_at)
    }
}

fn end_of(leaf: &CertificateDer<'_>) -> Result<SystemTime, VerifyError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|e| VerifyError::Unreadable(e.to_string()))?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// All workloads that one authority signed come with the same intermediates: one copy serves.
fn shared(intermediates: &[CertificateDer<'_>]) -> Arc<Intermediates> {
    static KNOWN: Mutex<Vec<Weak<Intermediates>>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock_unpoisoned();
    if let Some(same) = known.iter().filter_map(Weak::upgrade).find(|same| **same == *intermediates) {
        return same;
    }
    let new: Arc<Intermediates> = intermediates.iter().map(|certificate| certificate.clone().into_owned()).collect();
    known.retain(|old| old.strong_count() > 0);
    if known.len() < MAX_SHARED {
        known.push(Arc::downgrade(&new));
    }
    new
}
