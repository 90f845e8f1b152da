//! What peers are judged by: trust anchors and revocation lists, as one value that is replaced as a whole.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use tokio::sync::watch;
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder,
    UnknownStatusPolicy, anchor_from_trusted_cert,
};

use crate::session::PeerChain;
use crate::tls::provider;
use crate::verify::VerifyError;

/// The verifier in force, and a way to learn of its successor.
pub type TrustFeed = watch::Receiver<Arc<PeerVerifier>>;

/// SHA-256 of a certificate's DER. Shown as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; digest::SHA256_OUTPUT_LEN]);

impl Fingerprint {
    /// Of one certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut octets = [0; digest::SHA256_OUTPUT_LEN];
        octets.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        Self(octets)
    }

    /// From its octets, if there are as many as it has.
    #[must_use]
    pub fn from_bytes(octets: &[u8]) -> Option<Self> {
        octets.try_into().ok().map(Self)
    }

    /// Its octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Trust anchors and what has been revoked, as an authority publishes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustBundle {
    /// The anchors; more than one while roots rotate, none while nothing is known yet.
    pub roots: Arc<[CertificateDer<'static>]>,
    /// Revocation lists, each by its issuer.
    pub crls: Arc<[CertificateRevocationListDer<'static>]>,
    /// The certificate that signs workloads now, where known: what another one signed is due for renewal.
    pub signer: Option<Fingerprint>,
}

impl TrustBundle {
    /// The anchors alone.
    #[must_use]
    pub fn of_roots(roots: Arc<[CertificateDer<'static>]>) -> Self {
        Self { roots, ..Self::default() }
    }
}

/// On which side of TLS a certificate's owner stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It opened the connection.
    Client,
    /// It accepted it.
    Server,
}

/// Judges chains by one [`TrustBundle`]. Shared behind an [`Arc`]; two are the same when their pointers are.
pub struct PeerVerifier {
    bundle: TrustBundle,
    anchors: Vec<TrustAnchor<'static>>,
    crls: Vec<CertRevocationList<'static>>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier")
            .field("roots", &self.bundle.roots.len())
            .field("crls", &self.crls.len())
            .finish_non_exhaustive()
    }
}

impl PeerVerifier {
    /// A verifier that trusts what leads to the bundle's roots and is on none of its lists.
    ///
    /// # Errors
    /// When there is no root, or a root or a list cannot be used.
    pub fn new(bundle: TrustBundle) -> Result<Self, VerifyError> {
        if bundle.roots.is_empty() {
            return Err(VerifyError::Roots("there is none".to_owned()));
        }
        let anchor = |root| anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned());
        let anchors: Result<_, _> = bundle.roots.iter().map(anchor).collect();
        let list = |der: &CertificateRevocationListDer<'_>| OwnedCertRevocationList::from_der(der).map(Into::into);
        let crls: Result<_, _> = bundle.crls.iter().map(list).collect();
        Ok(Self {
            anchors: anchors.map_err(|error: webpki::Error| VerifyError::Roots(error.to_string()))?,
            crls: crls.map_err(|error: webpki::Error| VerifyError::Revocation(error.to_string()))?,
            bundle,
            provider: provider(),
        })
    }

    /// Trusts nobody: what a process has before its authority has told it of roots.
    #[must_use]
    pub fn of_nobody() -> Self {
        Self { bundle: TrustBundle::default(), anchors: Vec::new(), crls: Vec::new(), provider: provider() }
    }

    /// A feed that never changes.
    #[must_use]
    pub fn into_feed(self) -> TrustFeed {
        watch::channel(Arc::new(self)).1
    }

    /// What it judges by.
    #[must_use]
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// Whether a chain verifies at `now`; says nothing about names.
    ///
    /// Every certificate of the chain is looked up in the lists of its issuer; one whose issuer published no list is not
    /// revoked. A list that should have had a successor by now still counts.
    ///
    /// # Errors
    /// [`VerifyError::Chain`].
    pub fn verify_chain(
        &self,
        role: Role,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(), VerifyError> {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.verify_at(role, leaf, intermediates, UnixTime::since_unix_epoch(since))
    }

    pub(crate) fn verify_at(
        &self,
        role: Role,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        let usage = match role {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&crls)
            .ok()
            .map(|builder| builder.with_status_policy(UnknownStatusPolicy::Allow).build());
        EndEntityCert::try_from(leaf)
            .and_then(|leaf| {
                let algorithms = self.algorithms().all;
                leaf.verify_for_usage(algorithms, &self.anchors, intermediates, now, usage, revocation, None)
                    .map(|_path| ())
            })
            .map_err(VerifyError::of_chain)
    }

    pub(crate) fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }
}

/// Waits until a peer's certificates are accepted no more; `judge` has accepted them.
pub(crate) async fn until_untrusted(mut feed: TrustFeed, judge: &Arc<PeerVerifier>, chain: &PeerChain) -> VerifyError {
    let mut judge = Some(judge);
    loop {
        let current = feed.borrow_and_update().clone();
        if judge.take().is_none_or(|judge| !Arc::ptr_eq(judge, &current))
            && let Err(error) = chain.verify(&current)
        {
            return error;
        }
        drop(current);
        if feed.changed().await.is_err() {
            // It is the last word.
            std::future::pending::<()>().await;
        }
    }
}
