//! A workload's certificate with its private key.

use std::fmt;
use std::time::{Duration, SystemTime};

use mesh_core::SpiffeId;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::verify::{VerifyError, identity_of};

/// A certificate for one identity and its key.
///
/// The key is held in memory only; [`fmt::Debug`] leaves it out.
pub struct WorkloadCertificate {
    /// Who the certificate speaks for: its only URI SAN.
    pub identity: SpiffeId,
    /// The leaf, then intermediates, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key.
    pub key: PrivatePkcs8KeyDer<'static>,
    /// The leaf's serial number, as hexadecimal digits.
    pub serial: String,
    /// Start of validity, slightly in the past for clocks that run behind.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
}

impl WorkloadCertificate {
    /// Reads what an authority signed for `identity` and `key`. Whether the key is the leaf's shows when TLS uses it.
    ///
    /// # Errors
    /// When there is no leaf, it cannot be read, or it is for somebody else.
    pub fn new(
        identity: SpiffeId,
        chain: Vec<CertificateDer<'static>>,
        key: PrivatePkcs8KeyDer<'static>,
    ) -> Result<Self, VerifyError> {
        let leaf = chain.first().ok_or_else(|| VerifyError::Unreadable("there is none".to_owned()))?;
        let found = identity_of(leaf)?;
        if found != identity {
            return Err(VerifyError::Unexpected { found, expected: identity });
        }
        let (_, parsed) =
            x509_parser::parse_x509_certificate(leaf).map_err(|e| VerifyError::Unreadable(e.to_string()))?;
        let time = |time: x509_parser::time::ASN1Time| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
        };
        let (not_before, not_after) = (time(parsed.validity().not_before), time(parsed.validity().not_after));
        let serial = parsed.raw_serial().iter().map(|octet| format!("{octet:02x}")).collect();
        Ok(Self { identity, chain, key, serial, not_before, not_after })
    }
}

impl fmt::Debug for WorkloadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadCertificate")
            .field("identity", &self.identity.as_str())
            .field("chain", &self.chain.len())
            .field("serial", &self.serial)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
