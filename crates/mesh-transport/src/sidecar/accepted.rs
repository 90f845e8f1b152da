//! A sidecar that has connected to a pod of ours.

use std::fmt;
use std::sync::Arc;

use mesh_core::SpiffeId;
use rustls::ServerConfig;

use crate::direct::TunnelEnd;
use crate::session::PeerChain;
use crate::tls::TlsIdentity;
use crate::trust::{PeerVerifier, TrustFeed, until_untrusted};

/// What we take of a sidecar's offer: the first that it has.
const ALPN: [&str; 4] = ["istio", "istio-http/1.1", "istio-http/1.0", "istio-h2"];

impl TlsIdentity {
    /// What answers sidecars: the same certificate and the same judge of theirs as for tunnels.
    pub(crate) fn server_for_sidecars(&self) -> Arc<ServerConfig> {
        self.server_speaking(&self.server_for_sidecars, || ALPN.map(|name| name.as_bytes().to_vec()).to_vec())
    }
}

/// A sidecar that has proved who it is.
pub struct Sidecar {
    /// Who it is, by its certificate.
    pub identity: SpiffeId,
    pub(crate) chain: Arc<PeerChain>,
    /// Who has accepted the certificate.
    pub(crate) judge: Arc<PeerVerifier>,
    pub(crate) trust: TrustFeed,
}

impl fmt::Debug for Sidecar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sidecar").field("identity", &self.identity.as_str()).finish_non_exhaustive()
    }
}

impl Sidecar {
    /// Waits until its certificate is accepted no more.
    pub async fn until_untrusted(&self) -> TunnelEnd {
        TunnelEnd::Untrusted(until_untrusted(self.trust.clone(), &self.judge, &self.chain).await)
    }
}
