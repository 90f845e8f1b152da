//! The certificate authority: a root, an intermediate that signs workloads, and Istio's `cacerts` files for them.
//!
//! Layout (istio.io, "Plug in CA Certificates"): `ca-cert.pem` the signing certificate, `ca-key.pem` its key,
//! `cert-chain.pem` from the signing certificate up to the root, `root-cert.pem` the trust anchors, and, where anything is
//! revoked, `ca-crl.pem` the revocation lists.

mod directory;
mod revocation;
pub mod rotation;
mod signing;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_core::{IdentityError, SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;

pub use self::directory::LocalAuthority;
pub use self::signing::SignedCertificate;
use crate::cacerts::{self, CA_CERT, CERT_CHAIN, ROOT_CERT};
use crate::csr::CsrError;
use crate::trust::{Fingerprint, PeerVerifier, Role, TrustBundle};
use crate::verify::VerifyError;

/// How far `not_before` lies in the past, for peers whose clock runs behind.
pub const CLOCK_SKEW: Duration = Duration::from_secs(120);
/// How long a generated root and intermediate are valid.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Why an authority could not be made, read, written or used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file could not be read or written. Worth a retry once the path is right.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// `read`, `create` or the like.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the layout exists and would be lost.
    #[error("{0} exists already; remove it, choose another directory, or ask to overwrite")]
    Exists(PathBuf),
    /// A file does not hold what it must.
    #[error("{file} {problem}")]
    Content {
        /// Which file of the layout.
        file: &'static str,
        /// What is wrong and what belongs there.
        problem: String,
    },
    /// The signing certificate does not lead to a root of `root-cert.pem`.
    #[error("certificates signed by {CA_CERT} do not verify through {CERT_CHAIN} to {ROOT_CERT}: {0}")]
    Chain(VerifyError),
    /// A request that is not signed.
    #[error(transparent)]
    Request(#[from] CsrError),
    /// A step of a rotation that does not follow from the one before.
    #[error("{0}")]
    Rotation(String),
    /// A name that no identity can be made of.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Signing failed inside the cryptographic library.
    #[error("cannot {0}: {1}")]
    Sign(&'static str, rcgen::Error),
    /// The signing certificate ends before the certificate asked for would even begin.
    #[error("the signing certificate in {CA_CERT} has expired; renew it with `mesh-control ca init`")]
    Expired,
}

/// Signs workload certificates. Holds the signing key in memory.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// `certificate` and what stands between it and the roots, without the roots.
    chain: Vec<CertificateDer<'static>>,
    trust: TrustBundle,
    not_after: SystemTime,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("chain", &self.chain.len())
            .field("roots", &self.trust.roots.len())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// Makes a root and an intermediate that it signs. The root's key is dropped: rotating means a new root beside the old one.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn generate(trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, CaError> {
        let until = now + AUTHORITY_LIFETIME;
        // A name that no earlier root had: revocation lists are told apart by their issuer's name.
        let number = fastrand::u32(..);
        let params = |role: &str, constraints| {
            authority_params(&format!("{role} {number:08x}"), trust_domain, constraints, now, until)
        };
        let root = CertifiedIssuer::self_signed(params("Root CA", BasicConstraints::Unconstrained), new_key()?)
            .map_err(|e| CaError::Sign("sign the root certificate", e))?;
        let params = params("Intermediate CA", BasicConstraints::Constrained(0));
        let key = new_key()?;
        let certificate = params
            .signed_by(&key, &root)
            .map_err(|e| CaError::Sign("sign the intermediate certificate", e))?
            .der()
            .clone();
        Ok(Self {
            issuer: Issuer::new(params, key),
            chain: vec![certificate.clone()],
            trust: TrustBundle {
                roots: Arc::from([root.der().clone()]),
                signer: Some(Fingerprint::of(&certificate)),
                ..TrustBundle::default()
            },
            certificate,
            not_after: until,
        })
    }

    /// Reads the layout from `dir` and proves that a certificate signed now would verify.
    ///
    /// # Errors
    /// When a file is missing or broken, the key is another certificate's, or the chain does not lead to a root.
    pub fn load(dir: &Path, now: SystemTime) -> Result<Self, CaError> {
        let files = cacerts::read(dir)?;
        let key = KeyPair::from_pem(&files.key).map_err(|e| CaError::Content {
            file: cacerts::CA_KEY,
            problem: format!("is not a private key in PEM that can sign: {e}"),
        })?;
        let not_after = cacerts::check_signer(&files.certificate, &key)?;
        let issuer = Issuer::from_ca_cert_der(&files.certificate, key)
            .map_err(|e| CaError::Content { file: CA_CERT, problem: format!("cannot serve as issuer: {e}") })?;
        let mut chain = vec![files.certificate.clone()];
        for link in files.chain {
            if !chain.contains(&link) && !files.roots.contains(&link) {
                chain.push(link);
            }
        }
        // A root that signs directly is an anchor already and need not travel.
        chain.retain(|link| !files.roots.contains(link));
        let signer = Some(Fingerprint::of(&files.certificate));
        let trust = TrustBundle { roots: files.roots.into(), crls: files.crls.into(), signer };
        let authority = Self { issuer, certificate: files.certificate, chain, trust, not_after };
        authority.prove(&authority.trust.roots, now)?;
        authority.check_lists()?;
        Ok(authority)
    }

    /// Writes the layout into `dir`, which is created when missing. The key's mode is 0600.
    ///
    /// # Errors
    /// When a file exists and `overwrite` is false, or the file system refuses.
    pub fn write(&self, dir: &Path, overwrite: bool) -> Result<(), CaError> {
        cacerts::write(
            dir,
            overwrite,
            &cacerts::Files {
                certificate: self.certificate.clone(),
                key: self.issuer.key().serialize_pem(),
                chain: self.chain.iter().chain(self.trust.roots.iter()).cloned().collect(),
                roots: self.trust.roots.to_vec(),
                crls: self.trust.crls.to_vec(),
            },
        )
    }

    /// The trust anchors that certificates of this authority come with.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.trust.roots
    }

    /// What peers are judged by, as this authority publishes it.
    #[must_use]
    pub fn trust(&self) -> &TrustBundle {
        &self.trust
    }

    /// When the signing certificate ends.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Signs a certificate for nobody and verifies it as a peer would.
    fn prove(&self, roots: &Arc<[CertificateDer<'static>]>, now: SystemTime) -> Result<(), CaError> {
        let probe = SpiffeId::parse("spiffe://probe.invalid/ns/probe/sa/probe")
            .map_err(|e| CaError::Content { file: CA_CERT, problem: e.to_string() })?;
        let issued = self.issue(&probe, Duration::from_secs(60), now)?;
        let (leaf, intermediates) = issued.chain.split_first().ok_or(CaError::Expired)?;
        PeerVerifier::new(TrustBundle::of_roots(roots.clone()))
            .and_then(|verifier| verifier.verify_chain(Role::Server, leaf, intermediates, now))
            .map_err(CaError::Chain)
    }
}

fn new_key() -> Result<KeyPair, CaError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|e| CaError::Sign("make a P-256 key", e))
}

fn authority_params(
    role: &str,
    trust_domain: &TrustDomain,
    constraints: BasicConstraints,
    now: SystemTime,
    until: SystemTime,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = until.into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
    params.distinguished_name.push(DnType::CommonName, role);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

#[cfg(test)]
mod tests;
