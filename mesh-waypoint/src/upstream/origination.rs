//! TLS that is begun to endpoints, as DestinationRules ask for it: whom to believe, what to show, what to offer.

use std::{
    collections::HashMap,
    fs, io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mesh_core::l7::gateway::Credential;
use mesh_core::l7::traffic::{ClientCertificate, OriginSecret, Origination, Roots};
use mesh_core::lock::UnpoisonedMutex as _;
use mesh_transport::signatures_by;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    client::{
        danger::{ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};
use tokio::task::spawn_blocking;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::Version;

/// How long what was read of files stays in force without another look: certificates are replaced in their places.
const FRESH: Duration = Duration::from_secs(60);
/// Octets of a file; roots of a whole system are a quarter of that.
const MAX_FILE: u64 = 1 << 20;

/// Why no TLS can be begun.
#[derive(Debug, thiserror::Error)]
pub(super) enum OriginationError {
    /// A file, or the system's roots.
    #[error("{0}: {1}")]
    File(String, io::Error),
    /// The Secret that it needs.
    #[error("the proxy's namespace has no Secret {0} that can be used")]
    Secret(Arc<str>),
    /// The Secret has nothing to show.
    #[error("Secret {0} has no certificate and key, and MUTUAL shows one")]
    NothingToShow(Arc<str>),
    /// There is nobody to believe.
    #[error("{0} has no certificate of an authority")]
    NoRoots(String),
    /// A certificate and its key are none of each other's, or not of TLS.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The server's name is none.
    #[error("{0:?} is no server's name")]
    Name(Arc<str>),
    /// Reading was cut off: the program ends.
    #[error("reading was cut off")]
    CutOff,
}

/// What was read of files.
#[derive(Default, PartialEq)]
struct Material {
    roots: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: Option<Vec<u8>>,
}

struct CachedConfig {
    material: Arc<Material>,
    config: Arc<ClientConfig>,
    secret: Option<OriginSecret>,
    read: Instant,
}

/// What asks for TLS, and for which version of HTTP in it.
type ConfigKey = (Arc<Origination>, Option<Version>);

/// Configurations of TLS by what asks for them, over all threads.
#[derive(Default)]
pub(crate) struct Originations {
    known: Mutex<HashMap<ConfigKey, CachedConfig>>,
}

impl Originations {
    /// The configuration for connections of that version; none for bytes that are nobody's business.
    ///
    /// # Errors
    /// What it needs cannot be read, and never could.
    pub(super) async fn config(
        &self,
        origination: &Arc<Origination>,
        version: Option<Version>,
        secret: Option<OriginSecret>,
    ) -> Result<Arc<ClientConfig>, OriginationError> {
        let key = (origination.clone(), version);
        let old = {
            let known = self.known.lock_unpoisoned();
            match known.get(&key) {
                Some(known) if known.read.elapsed() < FRESH && known.secret == secret => {
                    return Ok(known.config.clone());
                }
                old => old.map(|old| (old.material.clone(), old.config.clone())),
            }
        };
        let (asked, held) = (origination.clone(), secret.clone());
        let read = spawn_blocking(move || read(&asked, held.as_ref())).await.map_err(|_| OriginationError::CutOff)?;
        let material = read.map(Arc::new);
        let (material, config) = match (material, old) {
            (Ok(material), Some((same, config))) if material == same => (same, config),
            (Ok(material), _) => {
                let config = Arc::new(config(origination, &material, version)?);
                (material, config)
            }
            // A Secret says what is to be: one that is gone is not to be used any more.
            (Err(error), Some(last_good)) if origination.secret.is_none() => {
                tracing::warn!(%error, "TLS to endpoints goes on by what was read before");
                last_good
            }
            (Err(error), _) => return Err(error),
        };
        let mut known = self.known.lock_unpoisoned();
        known.retain(|_, known| known.read.elapsed() < FRESH * 10);
        known.insert(key, CachedConfig { material, config: config.clone(), secret, read: Instant::now() });
        Ok(config)
    }
}

impl Material {
    /// Shows what a Secret has.
    fn show(&mut self, held: &Credential) {
        self.chain = held.chain.iter().map(|link| CertificateDer::from(link.to_vec())).collect();
        self.key = Some(held.key.to_vec());
    }
}

/// The name of the server in the handshake; its address where it has none.
pub(super) fn server_name(origination: &Origination, address: IpAddr) -> Result<ServerName<'static>, OriginationError> {
    match &origination.sni {
        None => Ok(ServerName::from(address)),
        Some(name) => ServerName::try_from(name.to_string()).map_err(|_| OriginationError::Name(name.clone())),
    }
}

fn read(origination: &Origination, secret: Option<&OriginSecret>) -> Result<Material, OriginationError> {
    let mut material = Material::default();
    if let Some(name) = &origination.secret {
        let secret = secret.ok_or_else(|| OriginationError::Secret(name.clone()))?;
        material.roots = secret.roots.iter().map(|root| CertificateDer::from(root.to_vec())).collect();
        if origination.mutual {
            let shown = secret.client.as_ref().ok_or_else(|| OriginationError::NothingToShow(name.clone()))?;
            material.show(shown);
        }
    }
    match &origination.roots {
        // Those of the Secret are there already.
        Roots::System if !material.roots.is_empty() => {}
        Roots::System => {
            material.roots = rustls_native_certs::load_native_certs().certs;
            if material.roots.is_empty() {
                return Err(OriginationError::NoRoots("the system".to_owned()));
            }
        }
        Roots::File(path) => {
            material.roots = certificates(path)?;
            if material.roots.is_empty() {
                return Err(OriginationError::NoRoots(path.to_string()));
            }
        }
        Roots::Held(held) => material.roots = held.iter().map(|root| CertificateDer::from(root.to_vec())).collect(),
        Roots::Anybody => {}
    }
    match &origination.client {
        Some(ClientCertificate::Files { certificate, key }) => {
            material.chain = certificates(certificate)?;
            let read = PrivateKeyDer::from_pem_slice(&file(key)?).map_err(|error| bad_pem(key, &error))?;
            material.key = Some(read.secret_der().to_vec());
        }
        Some(ClientCertificate::Held(held)) => material.show(held),
        None => {}
    }
    Ok(material)
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, OriginationError> {
    let text = file(path)?;
    CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|error| bad_pem(path, &error))
}

fn file(path: &str) -> Result<Vec<u8>, OriginationError> {
    let failed = |error| OriginationError::File(path.to_owned(), error);
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(failed(io::Error::other("larger than 1 MiB")));
    }
    fs::read(path).map_err(failed)
}

fn bad_pem(path: &str, error: &dyn std::error::Error) -> OriginationError {
    OriginationError::File(path.to_owned(), io::Error::other(error.to_string()))
}

fn config(
    origination: &Origination,
    material: &Material,
    version: Option<Version>,
) -> Result<ClientConfig, OriginationError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    // A system's store may hold what cannot be parsed; what is left has to verify the server.
    roots.add_parsable_certificates(material.roots.iter().cloned());
    let roots = Arc::new(roots);
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let believed = match (&origination.roots, origination.names.is_empty()) {
        (Roots::Anybody, _) => Some(Believed::Anybodys),
        (_, true) => None,
        (_, false) => Some(Believed::OneOf { names: origination.names.clone(), roots: roots.clone() }),
    };
    let builder = match believed {
        None => builder.with_root_certificates(roots),
        Some(believed) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier { believed, provider }))
        }
    };
    let mut config = match &material.key {
        None => builder.with_no_client_auth(),
        Some(key) => {
            let key = PrivateKeyDer::try_from(key.clone()).map_err(|error| rustls::Error::General(error.to_owned()))?;
            builder.with_client_auth_cert(material.chain.clone(), key)?
        }
    };
    config.alpn_protocols = match version {
        None => Vec::new(),
        Some(Version::Http1) => vec![b"http/1.1".to_vec()],
        Some(Version::Http2) => vec![b"h2".to_vec()],
    };
    Ok(config)
}

/// Whose certificate is believed, where the name that was asked for does not say it.
#[derive(Debug)]
enum Believed {
    /// Anybody's, as somebody has asked for (`insecureSkipVerify`).
    Anybodys,
    /// One of these authorities', with one of some names (`subjectAltNames`): of hosts, of a host's subdomains as the certificate writes
    /// them, and URIs.
    OneOf { names: Vec<Arc<str>>, roots: Arc<RootCertStore> },
}

#[derive(Debug)]
struct Verifier {
    believed: Believed,
    provider: Arc<CryptoProvider>,
}

/// Whether a certificate has that name.
fn is_named(certificate: &CertificateDer<'_>, parsed: &ParsedCertificate<'_>, name: &str) -> bool {
    if let Ok(name) = ServerName::try_from(name) {
        return verify_server_name(parsed, &name).is_ok();
    }
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return false };
    alternatives.value.general_names.iter().any(|own| match own {
        GeneralName::URI(uri) => *uri == name,
        GeneralName::DNSName(host) => host.eq_ignore_ascii_case(name),
        _ => false,
    })
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _asked: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Believed::OneOf { names, roots } = &self.believed else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
        if names.iter().any(|name| is_named(end_entity, &parsed, name)) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::NotValidForName.into())
    }

    signatures_by!(tls12, |self| &self.provider.signature_verification_algorithms);
}
