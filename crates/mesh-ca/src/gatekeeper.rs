//! Who may have a certificate for whom.

use mesh_core::{NodeName, SpiffeId};

/// Why a caller gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The token is nobody's.
    #[error("the bearer token is not of a node known here")]
    UnknownCaller,
    /// Who holds the token cannot be found out now. Worth a retry.
    #[error("whose token this is cannot be found out now: {0}")]
    Unavailable(String),
    /// No pod of that account runs on the caller's node, as far as is known here.
    #[error("no pod of {identity} is placed on node {node}")]
    NotPlaced {
        /// The account asked for.
        identity: SpiffeId,
        /// The caller's node.
        node: NodeName,
    },
}

/// Knows callers by their tokens, and where pods are placed.
///
/// A directory of tokens and manifests answers from memory; Kubernetes' TokenReview and its Pods can answer in the same place.
pub trait Gatekeeper: Send + Sync + 'static {
    /// The node whose agent holds `token`.
    ///
    /// # Errors
    /// [`Denial::UnknownCaller`], [`Denial::Unavailable`].
    fn authenticate(&self, token: &str) -> impl Future<Output = Result<NodeName, Denial>> + Send;

    /// Whether the agent of `node` may have a certificate for `identity`.
    ///
    /// # Errors
    /// [`Denial::NotPlaced`].
    fn authorize(&self, node: &NodeName, identity: &SpiffeId) -> impl Future<Output = Result<(), Denial>> + Send;
}
