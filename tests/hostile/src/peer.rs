//! The TLS client: trusts every server, offers what it is told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longer than the daemon gives anyone.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a client offers.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) certificate: Option<Arc<CertifiedKey>>,
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) tls12: bool,
}

impl Offer {
    /// What a node's daemon offers, with this certificate.
    pub(crate) fn h2(certificate: Arc<CertifiedKey>) -> Self {
        Self { certificate: Some(certificate), alpn: vec![b"h2".to_vec()], tls12: false }
    }

    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>> {
        let versions = if self.tls12 { &[&TLS12] } else { &[&TLS13] };
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_client_cert_resolver(Arc::new(Shown(self.certificate.clone())));
        config.alpn_protocols.clone_from(&self.alpn);
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// Connects and shakes hands.
pub(crate) async fn shake_hands(to: SocketAddr, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let name = ServerName::IpAddress(to.ip().into());
    Ok(timeout(PATIENCE, TlsConnector::from(config).connect(name, stream)).await.context("no handshake")??)
}

/// What the server says first. With TLS 1.3 its verdict on the client's certificate comes after the client's handshake.
pub(crate) async fn first_answer(stream: &mut TlsStream<TcpStream>) -> String {
    match timeout(PATIENCE, stream.read_u8()).await {
        Ok(Ok(_)) => "accepted".to_owned(),
        Ok(Err(error)) => how_refused(&error.into()),
        Err(_) => "silence".to_owned(),
    }
}

/// How a peer ended it, in few words: `alert CertificateExpired`, `end`, `reset`, or the error.
pub(crate) fn how_refused(error: &anyhow::Error) -> String {
    let system = error.downcast_ref::<std::io::Error>();
    let inner = system.and_then(|error| error.get_ref()).and_then(|inner| inner.downcast_ref::<Error>());
    match (inner, system.map(std::io::Error::kind)) {
        (Some(Error::AlertReceived(alert)), _) => format!("alert {alert:?}"),
        (_, Some(std::io::ErrorKind::UnexpectedEof)) => "end".to_owned(),
        (_, Some(std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)) => "reset".to_owned(),
        _ => format!("{error:#}"),
    }
}

#[derive(Debug)]
struct Shown(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
