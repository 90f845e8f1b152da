//! The TCP sockets of a pod's network namespace, by sock_diag.

use mesh_netlink::{SockDiag, SockDiagError};

use crate::netns::{NetNamespace, NetnsError};

/// A pod's connections could not be looked at or ended.
#[derive(Debug, thiserror::Error)]
pub enum PodSocketsError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel does not do it.
    #[error(transparent)]
    SockDiag(#[from] SockDiagError),
}

impl NetNamespace {
    /// The way to the namespace's TCP sockets.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel does not speak of sockets.
    pub fn sock_diag(&self) -> Result<SockDiag, PodSocketsError> {
        Ok(self.enter(SockDiag::open)??)
    }
}
