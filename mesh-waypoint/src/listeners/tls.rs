//! How TLS ends at a listener.

use std::sync::Arc;

use mesh_core::l7::gateway::{ClientCertificates, Credential, Termination};
use mesh_transport::signatures_by;
use rustls::{
    DistinguishedName, RootCertStore, ServerConfig, ServerConnection,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::{
        ClientHello, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

/// Why TLS cannot end at a listener.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// There is no certificate to show.
    #[error("it has no certificate")]
    NoCertificate,
    /// A key is of no kind that is known.
    #[error("the key of Secret {0} cannot be read")]
    Key(Arc<str>),
    /// A certificate and a key that are none of each other's, or another thing of TLS.
    #[error("Secret {0}: {1}")]
    Credential(Arc<str>, rustls::Error),
    /// Roots of clients' certificates.
    #[error("roots of clients' certificates: {0}")]
    Roots(String),
    /// Versions and ciphers.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// How TLS ends at a listener.
#[derive(Debug)]
pub(super) struct Ending {
    /// What its handshakes go by.
    pub(super) config: Arc<ServerConfig>,
    /// Whose clients' certificates are believed, where a handshake takes any.
    believed: Option<Arc<dyn ClientCertVerifier>>,
}

impl Ending {
    /// The certificate that a client has shown, if it is believed.
    pub(super) fn client<'a>(&self, session: &'a ServerConnection) -> Option<&'a CertificateDer<'static>> {
        let (own, issuers) = session.peer_certificates()?.split_first()?;
        let believe =
            |verifier: &Arc<dyn ClientCertVerifier>| verifier.verify_client_cert(own, issuers, UnixTime::now()).is_ok();
        self.believed.as_ref().is_none_or(believe).then_some(own)
    }
}

/// What a listener's handshakes go by.
pub(super) fn ending(termination: &Termination) -> Result<Ending, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let keys = termination.credentials.iter().map(|credential| certified(credential, &provider));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let versions = if termination.only_tls13 { &[&TLS13][..] } else { &[&TLS13, &TLS12] };
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions)?;
    let verifier = verifier(&termination.clients, &provider)?;
    let believed = verifier.clone().filter(|_| matches!(termination.clients, ClientCertificates::Any(_)));
    let builder = match verifier {
        Some(_) if believed.is_some() => builder.with_client_cert_verifier(Arc::new(Anybodys(provider))),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Credentials(keys)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Ending { config: Arc::new(config), believed })
}

fn certified(credential: &Credential, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = credential.chain.iter().map(|link| CertificateDer::from(link.to_vec())).collect();
    let key = PrivateKeyDer::try_from(credential.key.to_vec()).map_err(|_| TlsError::Key(credential.name.clone()))?;
    let certified = CertifiedKey::from_der(chain, key, provider);
    certified.map(Arc::new).map_err(|error| TlsError::Credential(credential.name.clone(), error))
}

fn verifier(
    clients: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let (given, required) = match clients {
        ClientCertificates::NotAsked => return Ok(None),
        ClientCertificates::Required(roots) => (roots, true),
        ClientCertificates::Optional(roots) | ClientCertificates::Any(roots) => (roots, false),
    };
    let mut roots = RootCertStore::empty();
    for root in given.iter() {
        roots.add(CertificateDer::from(root.to_vec())).map_err(|error| TlsError::Roots(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map(Some).map_err(|error| TlsError::Roots(error.to_string()))
}

/// Takes any certificate, and none, as somebody has asked for (`AllowInsecureFallback`): who has its key has it, and that is all.
#[derive(Debug)]
struct Anybodys(Arc<CryptoProvider>);

impl ClientCertVerifier for Anybodys {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _own: &CertificateDer<'_>,
        _issuers: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    signatures_by!(tls12, |self| &self.0.signature_verification_algorithms);
}

/// Several certificates for one name: the first whose key the client can verify.
#[derive(Debug)]
struct Credentials(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Credentials {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered = hello.signature_schemes();
        let fitting = self.0.iter().find(|key| key.key.choose_scheme(offered).is_some());
        fitting.or(self.0.first()).cloned()
    }
}
