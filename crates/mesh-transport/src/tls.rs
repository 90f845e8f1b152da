//! TLS 1.3 between workloads: one server and one client configuration an identity.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;

use mesh_core::lock::UnpoisonedMutex as _;
use mesh_core::{SpiffeId, TrustDomain};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificate::WorkloadCertificate;
use crate::direct;
use crate::sidecar::Content;
use crate::trust::PeerVerifier;
use crate::verify::{ExpectedServer, TrustDomainClients};

/// ALPN of HBONE.
pub const ALPN_H2: &[u8] = b"h2";

/// What tunnels are carried by. The server chooses the first that the client offers too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Carriers {
    /// `mesh-tunnel/1` between nodes of this mesh, HTTP/2 with others such as ztunnel.
    #[default]
    DirectOrH2,
    /// HTTP/2 alone.
    H2,
}

impl Carriers {
    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::DirectOrH2 => vec![direct::ALPN.to_vec(), ALPN_H2.to_vec()],
            Self::H2 => vec![ALPN_H2.to_vec()],
        }
    }
}

/// What a client configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Offer {
    /// Tunnels.
    Tunnels(Carriers),
    /// A sidecar, with this in TLS.
    Sidecar(Content),
}

impl Offer {
    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::Tunnels(carriers) => carriers.alpn(),
            Self::Sidecar(content) => content.alpn(),
        }
    }
}

/// How many destinations' client configurations an identity keeps.
const MAX_CLIENT_CONFIGS: usize = 1024;

/// Why a certificate cannot be used for TLS. Retrying needs another certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key or the chain cannot be used, or they do not belong together.
    #[error("the certificate of {identity} cannot be used for TLS: {source}")]
    Certificate {
        /// Whose certificate.
        identity: SpiffeId,
        /// What rustls said.
        source: rustls::Error,
    },
}

/// The cryptography in use: TLS 1.3's AEADs, hybrid post-quantum key exchange first.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| {
            Arc::new(CryptoProvider {
                cipher_suites: vec![
                    cipher_suite::TLS13_AES_128_GCM_SHA256,
                    cipher_suite::TLS13_AES_256_GCM_SHA384,
                    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
                ],
                kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
                ..aws_lc_rs::default_provider()
            })
        })
        .clone()
}

/// One identity, ready for both sides of TLS. Shared by threads.
pub struct TlsIdentity {
    /// Who we are.
    pub identity: SpiffeId,
    /// What the listener for this identity uses.
    pub server: Arc<ServerConfig>,
    /// The certificate's serial number, as hexadecimal digits.
    pub serial: String,
    /// Start of the certificate's validity.
    pub not_before: SystemTime,
    /// End of the certificate's validity.
    pub not_after: SystemTime,
    /// What its tunnels are carried by.
    pub(crate) carriers: Carriers,
    /// Tells this certificate and trust bundle from every other in the process.
    pub(crate) generation: u64,
    trust_domain: TrustDomain,
    peers: Arc<PeerVerifier>,
    certified: Arc<CertifiedKey>,
    clients: Mutex<HashMap<(SpiffeId, Offer), Arc<ClientConfig>>>,
    /// Made when the first sidecar connects.
    pub(crate) server_for_sidecars: OnceLock<Arc<ServerConfig>>,
    /// Made when there are as many direct tunnels as may be.
    server_for_sharing: OnceLock<Arc<ServerConfig>>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("identity", &self.identity.as_str())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Makes the configurations for `certificate`; `peers` judges others, who have to be of `trust_domain`.
    ///
    /// # Errors
    /// When the certificate or its key cannot be used, or they do not belong together.
    pub fn new(
        certificate: WorkloadCertificate,
        peers: Arc<PeerVerifier>,
        trust_domain: &TrustDomain,
        carriers: Carriers,
    ) -> Result<Self, TlsError> {
        let WorkloadCertificate { identity, chain, key, serial, not_before, not_after } = certificate;
        let certified = CertifiedKey::from_der(chain, PrivateKeyDer::Pkcs8(key), &provider())
            .map(Arc::new)
            .map_err(|source| TlsError::Certificate { identity: identity.clone(), source })?;
        let server = server_config(&identity, &certified, &peers, trust_domain, carriers)?;
        Ok(Self {
            identity,
            server: Arc::new(server),
            serial,
            not_before,
            not_after,
            generation: next_generation(),
            trust_domain: trust_domain.clone(),
            carriers,
            peers,
            certified,
            clients: Mutex::default(),
            server_for_sidecars: OnceLock::new(),
            server_for_sharing: OnceLock::new(),
        })
    }

    /// The same certificate with another judge of peers.
    ///
    /// # Errors
    /// When TLS 1.3 cannot be configured.
    pub fn with_peers(&self, peers: Arc<PeerVerifier>) -> Result<Self, TlsError> {
        let server = server_config(&self.identity, &self.certified, &peers, &self.trust_domain, self.carriers)?;
        Ok(Self {
            identity: self.identity.clone(),
            server: Arc::new(server),
            serial: self.serial.clone(),
            not_before: self.not_before,
            not_after: self.not_after,
            generation: next_generation(),
            trust_domain: self.trust_domain.clone(),
            carriers: self.carriers,
            peers,
            certified: self.certified.clone(),
            clients: Mutex::default(),
            server_for_sidecars: OnceLock::new(),
            server_for_sharing: OnceLock::new(),
        })
    }

    /// What the listener uses where no more tunnels may have a connection to themselves.
    pub(crate) fn server_for_sharing(&self) -> Arc<ServerConfig> {
        self.server_speaking(&self.server_for_sharing, || Carriers::H2.alpn())
    }

    /// What the listener uses, with other protocols; made once, in `made`.
    pub(crate) fn server_speaking(
        &self,
        made: &OnceLock<Arc<ServerConfig>>,
        alpn: impl FnOnce() -> Vec<Vec<u8>>,
    ) -> Arc<ServerConfig> {
        let made = made.get_or_init(|| {
            let mut config = ServerConfig::clone(&self.server);
            config.alpn_protocols = alpn();
            Arc::new(config)
        });
        made.clone()
    }

    /// Who judges peers.
    #[must_use]
    pub fn peers(&self) -> &Arc<PeerVerifier> {
        &self.peers
    }

    /// Our own leaf, then intermediates.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// What a connection to `expected` uses. Made once a destination and kept.
    ///
    /// # Errors
    /// When TLS 1.3 cannot be configured.
    pub fn client(&self, expected: &SpiffeId) -> Result<Arc<ClientConfig>, TlsError> {
        self.client_offering(expected, self.carriers)
    }

    /// As [`Self::client`], for a tunnel by no other than these carriers.
    pub(crate) fn client_offering(
        &self,
        expected: &SpiffeId,
        carriers: Carriers,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        self.client_for(expected, Offer::Tunnels(carriers))
    }

    /// What a connection to the sidecar of `expected` uses.
    pub(crate) fn client_to_sidecar(
        &self,
        expected: &SpiffeId,
        content: Content,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        self.client_for(expected, Offer::Sidecar(content))
    }

    fn client_for(&self, expected: &SpiffeId, offer: Offer) -> Result<Arc<ClientConfig>, TlsError> {
        let key = (expected.clone(), offer);
        let mut clients = self.clients.lock_unpoisoned();
        if let Some(config) = clients.get(&key) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.client_config(expected, offer)?);
        if clients.len() >= MAX_CLIENT_CONFIGS {
            clients.clear();
        }
        clients.insert(key, config.clone());
        Ok(config)
    }

    fn client_config(&self, expected: &SpiffeId, offer: Offer) -> Result<ClientConfig, TlsError> {
        let verifier = ExpectedServer::new(self.peers.clone(), expected.clone());
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|source| TlsError::Certificate { identity: self.identity.clone(), source })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(self.certified.clone())));
        config.alpn_protocols = offer.alpn();
        config.enable_secret_extraction = true;
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

fn next_generation() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn server_config(
    identity: &SpiffeId,
    certified: &Arc<CertifiedKey>,
    peers: &Arc<PeerVerifier>,
    trust_domain: &TrustDomain,
    carriers: Carriers,
) -> Result<ServerConfig, TlsError> {
    let clients = TrustDomainClients::new(peers.clone(), trust_domain.clone());
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| TlsError::Certificate { identity: identity.clone(), source })?
        .with_client_cert_verifier(Arc::new(clients))
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified.clone())));
    server.alpn_protocols = carriers.alpn();
    // The records are ours: see the record module.
    server.enable_secret_extraction = true;
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(server)
}
