//! What rustls asks of everybody who judges certificates, whatever is judged: that the peer has the key of what it shows.

/// Writes the methods of a [`ServerCertVerifier`](rustls::client::danger::ServerCertVerifier) or a
/// [`ClientCertVerifier`](rustls::server::danger::ClientCertVerifier) that check signatures, by the algorithms that are named
/// as `|self| algorithms`: `tls13` takes that version alone, `tls12` the one before as well.
#[macro_export]
macro_rules! signatures_by {
    (tls13, |$this:ident| $algorithms:expr) => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &::rustls::pki_types::CertificateDer<'_>,
            _signature: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            Err(::rustls::PeerIncompatible::SupportedVersionsExtensionRequired.into())
        }

        $crate::signatures_by!(@tls13 |$this| $algorithms);
    };
    (tls12, |$this:ident| $algorithms:expr) => {
        fn verify_tls12_signature(
            &$this,
            message: &[u8],
            certificate: &::rustls::pki_types::CertificateDer<'_>,
            signature: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            ::rustls::crypto::verify_tls12_signature(message, certificate, signature, $algorithms)
        }

        $crate::signatures_by!(@tls13 |$this| $algorithms);
    };
    (@tls13 |$this:ident| $algorithms:expr) => {
        fn verify_tls13_signature(
            &$this,
            message: &[u8],
            certificate: &::rustls::pki_types::CertificateDer<'_>,
            signature: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            ::rustls::crypto::verify_tls13_signature(message, certificate, signature, $algorithms)
        }

        fn supported_verify_schemes(&$this) -> Vec<::rustls::SignatureScheme> {
            $algorithms.supported_schemes()
        }
    };
}
