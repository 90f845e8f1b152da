//! Who may have a certificate for whom.

use std::fmt;
use std::sync::Arc;

use mesh_core::{NodeName, SpiffeId};
use tonic::Status;
use tonic::metadata::MetadataMap;

/// Who asks for certificates.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A node's agent: it asks for the accounts of the pods that are placed there.
    Node(NodeName),
    /// A proxy that runs in a pod of its own: it asks for its own account alone.
    Proxy(SpiffeId),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Proxy(identity) => write!(f, "proxy {identity}"),
        }
    }
}

/// Why a caller gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The token is nobody's.
    #[error("the bearer token is of nobody who may ask here")]
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
    /// A proxy asks for another account than its own.
    #[error("proxy {caller} may not have a certificate for {identity}")]
    NotItsOwn {
        /// The account asked for.
        identity: SpiffeId,
        /// The caller's own.
        caller: SpiffeId,
    },
}

/// Knows callers by their tokens, and where pods are placed.
///
/// A directory of tokens and manifests answers from memory; Kubernetes' TokenReview and its Pods can answer in the same place.
pub trait Gatekeeper: Send + Sync + 'static {
    /// Who holds `token`.
    ///
    /// # Errors
    /// [`Denial::UnknownCaller`], [`Denial::Unavailable`].
    fn authenticate(&self, token: &str) -> impl Future<Output = Result<Caller, Denial>> + Send;

    /// Whether `token` is of another replica of this program, which asks how far those are who are connected to this one. Where
    /// nothing is said of replicas there are none.
    ///
    /// # Errors
    /// [`Denial::UnknownCaller`], [`Denial::Unavailable`].
    fn authenticate_replica(&self, token: &str) -> impl Future<Output = Result<(), Denial>> + Send {
        let _ = token;
        std::future::ready(Err(Denial::UnknownCaller))
    }

    /// Whether the agent of `node` may have a certificate for `identity`.
    ///
    /// # Errors
    /// [`Denial::NotPlaced`].
    fn placed(&self, node: &NodeName, identity: &SpiffeId) -> impl Future<Output = Result<(), Denial>> + Send;

    /// Whether the caller may have a certificate for `identity`.
    ///
    /// # Errors
    /// [`Denial::NotPlaced`], [`Denial::NotItsOwn`].
    fn authorize(&self, caller: &Caller, identity: &SpiffeId) -> impl Future<Output = Result<(), Denial>> + Send {
        async move {
            match caller {
                Caller::Node(node) => self.placed(node, identity).await,
                Caller::Proxy(own) if own == identity => Ok(()),
                Caller::Proxy(own) => Err(Denial::NotItsOwn { identity: identity.clone(), caller: own.clone() }),
            }
        }
    }
}

impl<G: Gatekeeper> Gatekeeper for Arc<G> {
    async fn authenticate(&self, token: &str) -> Result<Caller, Denial> {
        G::authenticate(self, token).await
    }

    async fn authenticate_replica(&self, token: &str) -> Result<(), Denial> {
        G::authenticate_replica(self, token).await
    }

    async fn placed(&self, node: &NodeName, identity: &SpiffeId) -> Result<(), Denial> {
        G::placed(self, node, identity).await
    }

    async fn authorize(&self, caller: &Caller, identity: &SpiffeId) -> Result<(), Denial> {
        G::authorize(self, caller, identity).await
    }
}

/// Who makes a request, by the bearer token that it shows.
///
/// # Errors
/// As the caller is told.
pub async fn caller(gatekeeper: &impl Gatekeeper, metadata: &MetadataMap) -> Result<Caller, Status> {
    gatekeeper.authenticate(bearer(metadata)?).await.map_err(|denial| refusal(&denial))
}

/// Lets a request pass that another replica makes, by the bearer token that it shows.
///
/// # Errors
/// As whoever asks is told.
pub async fn replica(gatekeeper: &impl Gatekeeper, metadata: &MetadataMap) -> Result<(), Status> {
    gatekeeper.authenticate_replica(bearer(metadata)?).await.map_err(|denial| refusal(&denial))
}

fn bearer(metadata: &MetadataMap) -> Result<&str, Status> {
    let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")));
    let token = token.ok_or_else(|| Status::unauthenticated("there is no header `authorization: Bearer TOKEN`"))?;
    Ok(token.trim())
}

/// A denial as the caller is told of it.
pub(crate) fn refusal(denial: &Denial) -> Status {
    match denial {
        Denial::Unavailable(_) => Status::unavailable(denial.to_string()),
        Denial::UnknownCaller => Status::unauthenticated(denial.to_string()),
        Denial::NotPlaced { .. } | Denial::NotItsOwn { .. } => Status::permission_denied(denial.to_string()),
    }
}
