//! A workload's certificate with its private key, as an authority hands it out.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use mesh_core::SpiffeId;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// A certificate for one identity, its key, and the roots that its peers are judged by.
///
/// The key is held in memory only; [`fmt::Debug`] leaves it out.
pub struct WorkloadCertificate {
    /// Who the certificate speaks for: its only URI SAN.
    pub identity: SpiffeId,
    /// The leaf, then intermediates, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key.
    pub key: PrivatePkcs8KeyDer<'static>,
    /// Trust anchors for peers of the same trust domain; more than one while roots rotate.
    pub roots: Arc<[CertificateDer<'static>]>,
    /// Start of validity, slightly in the past for clocks that run behind.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
}

impl fmt::Debug for WorkloadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadCertificate")
            .field("identity", &self.identity.as_str())
            .field("chain", &self.chain.len())
            .field("roots", &self.roots.len())
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
