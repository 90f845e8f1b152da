//! Signing: a request and an identity in, a certificate out.

use std::time::{Duration, SystemTime};

use mesh_core::SpiffeId;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use super::{CLOCK_SKEW, CaError, CertificateAuthority};
use crate::certificate::WorkloadCertificate;
use crate::csr::{CertificateRequest, NewKey};

/// Bytes of a serial number. RFC 5280, section 4.1.2.2, allows 20; 16 random ones never meet.
const SERIAL: usize = 16;

/// What an authority made of a request.
#[derive(Debug, Clone)]
pub struct SignedCertificate {
    /// The leaf, then intermediates, without the root.
    pub chain: Vec<CertificateDer<'static>>,
}

impl CertificateAuthority {
    /// Signs the request's key for `identity`, valid from [`CLOCK_SKEW`] before `now` until `lifetime` after it, but never
    /// longer than the signing certificate. Whether the sender may have that identity is the caller's to know.
    ///
    /// # Errors
    /// When the request names somebody else, the signing certificate has expired, or the cryptographic library fails.
    pub fn sign(
        &self,
        request: &CertificateRequest,
        identity: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<SignedCertificate, CaError> {
        request.check_names(identity)?;
        let uri = identity.as_str().try_into().map_err(|e| CaError::Sign("write the identity as a URI", e))?;
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign_leaf(request, SanType::URI(uri), &usages, lifetime, now)
    }

    /// Signs the certificate by which a server of the control plane is known: for a DNS name, and no workload's.
    ///
    /// # Errors
    /// As [`CertificateAuthority::sign`], and when `name` is no DNS name.
    pub fn sign_server(
        &self,
        request: &CertificateRequest,
        name: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<SignedCertificate, CaError> {
        let name = name.try_into().map_err(|e| CaError::Sign("write the server's DNS name", e))?;
        self.sign_leaf(request, SanType::DnsName(name), &[ExtendedKeyUsagePurpose::ServerAuth], lifetime, now)
    }

    /// Makes a key and signs it, all in this process. The path is the same as for a request from elsewhere.
    ///
    /// # Errors
    /// See [`CertificateAuthority::sign`].
    pub fn issue(
        &self,
        identity: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<WorkloadCertificate, CaError> {
        let NewKey { key, request } = NewKey::generate(identity).map_err(|e| CaError::Sign("make a P-256 key", e))?;
        let signed = self.sign(&CertificateRequest::from_pem(&request)?, identity, lifetime, now)?;
        WorkloadCertificate::new(identity.clone(), signed.chain, key)
            .map_err(|e| CaError::Sign("read the certificate just signed", rcgen::Error::X509(e.to_string())))
    }

    fn sign_leaf(
        &self,
        request: &CertificateRequest,
        name: SanType,
        usages: &[ExtendedKeyUsagePurpose],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<SignedCertificate, CaError> {
        // As X.509 says it: in whole seconds.
        let not_after = (now + lifetime).min(self.not_after);
        if not_after <= now {
            return Err(CaError::Expired);
        }
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial()?);
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = not_after.into();
        // An empty subject makes the SAN critical (RFC 5280, section 4.2.1.6; X509-SVID, section 4.1).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![name];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        let leaf = params
            .signed_by(request.key(), &self.issuer)
            .map_err(|e| CaError::Sign("sign a workload's certificate", e))?;
        let chain = std::iter::once(leaf.der().clone()).chain(self.chain.iter().cloned()).collect();
        Ok(SignedCertificate { chain })
    }
}

fn serial() -> Result<SerialNumber, CaError> {
    let mut octets = [0; SERIAL];
    aws_lc_rs::rand::fill(&mut octets)
        .map_err(|_| CaError::Sign("draw a serial number", rcgen::Error::RingUnspecified))?;
    // Positive, and of the same length always.
    octets[0] = octets[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&octets))
}
