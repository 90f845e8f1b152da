//! Why a peer was turned away, as a closed set that metrics can be labelled with.

use rustls::{AlertDescription, CertificateError, Error, OtherError, PeerIncompatible};

use crate::verify::VerifyError;

/// Why a connection or a request was turned away. [`RejectReason::as_str`] gives the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    /// The first bytes were no TLS record.
    NotTls,
    /// The peer does not speak TLS 1.3.
    TlsVersion,
    /// The peer offered no application protocol that is spoken here.
    Alpn,
    /// No cipher suite, key exchange group or signature scheme in common.
    TlsParameters,
    /// The peer showed no certificate.
    CertificateMissing,
    /// The certificate's issuer is not trusted here.
    CertificateUntrusted,
    /// The certificate's validity is over.
    CertificateExpired,
    /// The certificate's validity has not begun.
    CertificateNotYetValid,
    /// The certificate, or one that signed it, was revoked.
    CertificateRevoked,
    /// The certificate has no URI SAN.
    UriSanMissing,
    /// The certificate has two or more URI SANs.
    UriSanSeveral,
    /// The URI SAN is no identity of a Kubernetes service account.
    UriSanNotSpiffe,
    /// The identity belongs to another trust domain.
    TrustDomain,
    /// The identity is another one than the destination may have.
    IdentityUnexpected,
    /// The certificate is broken in another way.
    CertificateInvalid,
    /// The peer refused our certificate.
    CertificateRefusedByPeer,
    /// The handshake did not end within its time.
    HandshakeTimeout,
    /// The peer went away during the handshake.
    HandshakeAborted,
    /// The handshake broke TLS's rules.
    HandshakeFailed,
    /// HTTP/2's rules were broken, or its limits (header size, resets, settings).
    Http2,
    /// A request other than CONNECT.
    Method,
    /// CONNECT to something other than an address and a port.
    Authority,
    /// The rules of `mesh-tunnel/1`, or of TLS's records, were broken.
    Tunnel,
}

impl RejectReason {
    /// Every reason, for metrics that start at zero.
    pub const ALL: [Self; 23] = [
        Self::NotTls,
        Self::TlsVersion,
        Self::Alpn,
        Self::TlsParameters,
        Self::CertificateMissing,
        Self::CertificateUntrusted,
        Self::CertificateExpired,
        Self::CertificateNotYetValid,
        Self::CertificateRevoked,
        Self::UriSanMissing,
        Self::UriSanSeveral,
        Self::UriSanNotSpiffe,
        Self::TrustDomain,
        Self::IdentityUnexpected,
        Self::CertificateInvalid,
        Self::CertificateRefusedByPeer,
        Self::HandshakeTimeout,
        Self::HandshakeAborted,
        Self::HandshakeFailed,
        Self::Http2,
        Self::Method,
        Self::Authority,
        Self::Tunnel,
    ];

    /// The label, in snake case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::TlsVersion => "tls_version",
            Self::Alpn => "alpn",
            Self::TlsParameters => "tls_parameters",
            Self::CertificateMissing => "certificate_missing",
            Self::CertificateUntrusted => "certificate_untrusted",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateNotYetValid => "certificate_not_yet_valid",
            Self::CertificateRevoked => "certificate_revoked",
            Self::UriSanMissing => "uri_san_missing",
            Self::UriSanSeveral => "uri_san_several",
            Self::UriSanNotSpiffe => "uri_san_not_spiffe",
            Self::TrustDomain => "trust_domain",
            Self::IdentityUnexpected => "identity_unexpected",
            Self::CertificateInvalid => "certificate_invalid",
            Self::CertificateRefusedByPeer => "certificate_refused_by_peer",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeAborted => "handshake_aborted",
            Self::HandshakeFailed => "handshake_failed",
            Self::Http2 => "http2",
            Self::Method => "method",
            Self::Authority => "authority",
            Self::Tunnel => "tunnel",
        }
    }

    /// Sorts what rustls said about a handshake.
    #[must_use]
    pub fn of_tls(error: &Error) -> Self {
        match error {
            Error::InvalidMessage(_) => Self::NotTls,
            Error::NoApplicationProtocol => Self::Alpn,
            Error::NoCertificatesPresented => Self::CertificateMissing,
            Error::PeerIncompatible(incompatible) => of_incompatible(incompatible),
            Error::InvalidCertificate(problem) => of_certificate(problem),
            Error::AlertReceived(alert) => of_alert(*alert),
            _ => Self::HandshakeFailed,
        }
    }
}

fn of_incompatible(incompatible: &PeerIncompatible) -> RejectReason {
    match incompatible {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic => RejectReason::TlsVersion,
        _ => RejectReason::TlsParameters,
    }
}

fn of_certificate(problem: &CertificateError) -> RejectReason {
    match problem {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => RejectReason::CertificateExpired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            RejectReason::CertificateNotYetValid
        }
        CertificateError::Revoked => RejectReason::CertificateRevoked,
        CertificateError::UnknownIssuer | CertificateError::BadSignature => RejectReason::CertificateUntrusted,
        CertificateError::Other(OtherError(other)) => {
            other.downcast_ref::<VerifyError>().map_or(RejectReason::CertificateInvalid, VerifyError::reason)
        }
        _ => RejectReason::CertificateInvalid,
    }
}

fn of_alert(alert: AlertDescription) -> RejectReason {
    match alert {
        AlertDescription::ProtocolVersion => RejectReason::TlsVersion,
        AlertDescription::NoApplicationProtocol => RejectReason::Alpn,
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRequired
        | AlertDescription::AccessDenied
        | AlertDescription::UnknownCA => RejectReason::CertificateRefusedByPeer,
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => RejectReason::TlsParameters,
        _ => RejectReason::HandshakeFailed,
    }
}
