//! Who a peer is, from its certificate and from nothing else.
//!
//! webpki judges the chain against the roots; then the leaf must have exactly one URI SAN, and that one is the identity
//! (X509-SVID, sections 2 and 5). DNS names, addresses and the subject mean nothing here, nor does the name asked for in TLS.

use std::sync::Arc;

use mesh_core::{IdentityError, SpiffeId, TrustDomain};
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error, OtherError};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;

use crate::reject::RejectReason;
use crate::trust::{PeerVerifier, Role};

/// Why a certificate says nothing about who the peer is. Retrying needs another certificate, roots or clock.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum VerifyError {
    /// There is nothing to judge certificates by.
    #[error("no usable root certificate: {0}")]
    Roots(String),
    /// A revocation list cannot be used.
    #[error("a certificate revocation list cannot be used: {0}")]
    Revocation(String),
    /// The leaf is no X.509 certificate, or its SAN extension is broken or there twice.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// The chain does not verify.
    #[error("the certificate chain does not verify: {0}")]
    Chain(Error),
    /// No URI SAN.
    #[error("the certificate has no URI SAN, so it names no workload")]
    UriSanMissing,
    /// More than one URI SAN.
    #[error("the certificate has {0} URI SANs where exactly one is allowed")]
    UriSanSeveral(usize),
    /// The URI SAN is something else.
    #[error("the certificate's URI SAN is no workload identity: {0}")]
    NotSpiffe(#[from] IdentityError),
    /// A workload of somebody else's.
    #[error("{found} does not belong to trust domain {own}")]
    TrustDomain {
        /// Who the peer is.
        found: SpiffeId,
        /// Who we accept.
        own: TrustDomain,
    },
    /// Not the workload that lives at the destination.
    #[error("the peer is {found}, but the destination runs as {expected}")]
    Unexpected {
        /// Who the peer is.
        found: SpiffeId,
        /// Who it should be.
        expected: SpiffeId,
    },
}

impl VerifyError {
    /// The reason for metrics.
    #[must_use]
    pub fn reason(&self) -> RejectReason {
        match self {
            Self::Roots(_) | Self::Revocation(_) => RejectReason::CertificateUntrusted,
            Self::Unreadable(_) => RejectReason::CertificateInvalid,
            Self::Chain(error) => RejectReason::of_tls(error),
            Self::UriSanMissing => RejectReason::UriSanMissing,
            Self::UriSanSeveral(_) => RejectReason::UriSanSeveral,
            Self::NotSpiffe(_) => RejectReason::UriSanNotSpiffe,
            Self::TrustDomain { .. } => RejectReason::TrustDomain,
            Self::Unexpected { .. } => RejectReason::IdentityUnexpected,
        }
    }

    /// What webpki found, in rustls's words, which have an alert for each.
    pub(crate) fn of_chain(error: webpki::Error) -> Self {
        use webpki::Error as Found;
        Self::Chain(Error::InvalidCertificate(match error {
            Found::BadDer | Found::BadDerTime | Found::TrailingData(_) => CertificateError::BadEncoding,
            Found::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
            Found::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
            Found::InvalidCertValidity => CertificateError::Expired,
            Found::UnknownIssuer => CertificateError::UnknownIssuer,
            Found::CertRevoked => CertificateError::Revoked,
            Found::InvalidSignatureForPublicKey => CertificateError::BadSignature,
            Found::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        }))
    }

    pub(crate) fn into_tls(self) -> Error {
        match self {
            // Keeps rustls's own alert for what webpki found.
            Self::Chain(error) => error,
            other => Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(other)))),
        }
    }
}

/// The identity in a leaf certificate that has been verified already.
///
/// # Errors
/// When there is not exactly one URI SAN, or it is no [`SpiffeId`].
pub fn identity_of(leaf: &CertificateDer<'_>) -> Result<SpiffeId, VerifyError> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(leaf).map_err(|e| VerifyError::Unreadable(e.to_string()))?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|e| VerifyError::Unreadable(e.to_string()))?
        .map_or(&[][..], |extension| &extension.value.general_names);
    let mut uris = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::Invalid(tag, _) => {
                return Err(VerifyError::Unreadable(format!("a SAN of type {} is malformed", tag.0)));
            }
            _ => {}
        }
    }
    match uris[..] {
        [] => Err(VerifyError::UriSanMissing),
        [uri] => Ok(SpiffeId::parse(uri)?),
        _ => Err(VerifyError::UriSanSeveral(uris.len())),
    }
}

/// The client's side: accepts exactly one identity.
#[derive(Debug)]
pub struct ExpectedServer {
    peers: Arc<PeerVerifier>,
    expected: SpiffeId,
}

impl ExpectedServer {
    /// Accepts a server that is `expected` and nobody else.
    #[must_use]
    pub fn new(peers: Arc<PeerVerifier>, expected: SpiffeId) -> Self {
        Self { peers, expected }
    }
}

impl ServerCertVerifier for ExpectedServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.peers
            .verify_at(Role::Server, leaf, intermediates, now)
            .and_then(|()| identity_of(leaf))
            .and_then(|found| {
                if found == self.expected {
                    Ok(ServerCertVerified::assertion())
                } else {
                    Err(VerifyError::Unexpected { found, expected: self.expected.clone() })
                }
            })
            .map_err(VerifyError::into_tls)
    }

    crate::signatures_by!(tls13, |self| self.peers.algorithms());
}

/// The server's side: accepts every workload of one trust domain. [`identity_of`] tells which afterwards.
#[derive(Debug)]
pub struct TrustDomainClients {
    peers: Arc<PeerVerifier>,
    trust_domain: TrustDomain,
}

impl TrustDomainClients {
    /// Accepts the workloads of `trust_domain`.
    #[must_use]
    pub fn new(peers: Arc<PeerVerifier>, trust_domain: TrustDomain) -> Self {
        Self { peers, trust_domain }
    }
}

impl ClientCertVerifier for TrustDomainClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.peers.verify_at(Role::Client, leaf, intermediates, now).map_err(VerifyError::into_tls)?;
        let found = identity_of(leaf).map_err(VerifyError::into_tls)?;
        if found.is_of(&self.trust_domain) {
            Ok(ClientCertVerified::assertion())
        } else {
            let own = self.trust_domain.clone();
            Err(VerifyError::TrustDomain { found, own }.into_tls())
        }
    }

    crate::signatures_by!(tls13, |self| self.peers.algorithms());
}
