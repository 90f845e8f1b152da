//! What carries the mesh's bytes: certificates, TLS by workload identity, tunnels and the relay between sockets.
//!
//! Everything runs on current-thread runtimes: tunnels and pools stay on the thread that made them,
//! and tasks are spawned with [`tokio::task::spawn_local`].
#![forbid(unsafe_code)]

mod buffer;
pub mod ca;
mod cacerts;
pub mod certificate;
pub mod csr;
pub mod direct;
mod gate;
pub mod hbone;
pub mod identities;
pub mod limits;
pub mod proxy_protocol;
mod record;
pub mod reject;
pub mod relay;
mod session;
pub mod sidecar;
mod signatures;
mod socket;
pub mod source;
pub mod tls;
pub mod trust;
pub mod verify;

pub use ca::{CaError, CertificateAuthority, LocalAuthority, SignedCertificate};
pub use certificate::WorkloadCertificate;
pub use identities::{AuthorityStatus, CertificateStatus, Identities, IdentityFetchError, IdentitySettings};
pub use limits::Limits;
pub use reject::RejectReason;
pub use relay::{End, Far, Outcome, RelayCounters, relay};
pub use session::{TlsStream, break_off, unheard_for};
pub use source::{CertificateSource, SignError};
pub use tls::{Carriers, TlsError, TlsIdentity};
pub use trust::{Fingerprint, PeerVerifier, Role, TrustBundle, TrustFeed};
pub use verify::{VerifyError, identity_of};

/// Doors to private parsers, for the fuzz targets alone.
#[cfg(fuzzing)]
pub mod fuzzing {
    use crate::direct::{self, Frame, parse_request, parse_status, split};
    use crate::hbone::TunnelRequest;

    /// The payload of a REQUEST.
    #[must_use]
    pub fn encode_request(request: &TunnelRequest) -> Vec<u8> {
        direct::encode_request(request)
    }

    /// A record's content as mesh-tunnel/1 has it; the request in it, if it is one.
    #[must_use]
    pub fn parse_frame(content: &[u8]) -> Option<TunnelRequest> {
        match split(content).ok()? {
            (Frame::Request, payload) => parse_request(payload).ok(),
            (Frame::Response, payload) => {
                let _ = parse_status(payload);
                None
            }
            _ => None,
        }
    }
}
