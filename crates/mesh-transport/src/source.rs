//! Where certificates come from: an authority in this process, or one over the network.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use mesh_core::SpiffeId;

use crate::ca::{CaError, SignedCertificate};
use crate::trust::TrustFeed;

/// Why a request was not signed. Every kind is worth a later try: the authority, its configuration or the way to it may change.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The authority in this process could not.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The authority said no, or said something that is no answer.
    #[error("the CA refused: {0}")]
    Refused(String),
    /// There is no answer from the authority.
    #[error("the CA at {address} cannot be reached: {problem}")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What happened instead.
        problem: String,
    },
    /// The authority's own certificate is not valid now, by this machine's clock.
    #[error(
        "the certificate of the CA at {address} is not valid by this node's clock, which is at least {behind} s behind (ahead, if \
         negative): set the clock"
    )]
    Clock {
        /// Where it is.
        address: String,
        /// By how many seconds the clock is behind at least.
        behind: i64,
    },
}

/// A certificate on its way.
pub type Signing<'a> = Pin<Box<dyn Future<Output = Result<SignedCertificate, SignError>> + Send + 'a>>;

/// Signs requests and says whom to trust.
pub trait CertificateSource: fmt::Debug + Send + Sync {
    /// Asks for a certificate: `request` is PKCS #10 in PEM.
    fn sign<'a>(&'a self, request: &'a str, identity: &'a SpiffeId, lifetime: Duration) -> Signing<'a>;

    /// The trust bundle in force. It is current before [`CertificateSource::sign`] has returned a certificate.
    fn trust(&self) -> TrustFeed;
}
