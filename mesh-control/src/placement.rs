//! Who may have which certificate in directory mode: nodes by their tokens, pods by their manifests.

use std::sync::Arc;

use mesh_ca::{Caller, Denial, Gatekeeper};
use mesh_config::Config;
use mesh_core::{NodeName, SpiffeId};
use tokio::sync::watch;

use crate::node_tokens::NodeTokens;

/// Tokens from files, placement from manifests.
pub(crate) struct DirectoryGatekeeper {
    pub(crate) tokens: NodeTokens,
    pub(crate) config: watch::Receiver<Arc<Config>>,
}

impl Gatekeeper for DirectoryGatekeeper {
    async fn authenticate(&self, token: &str) -> Result<Caller, Denial> {
        self.tokens.node_of(token).map(Caller::Node).ok_or(Denial::UnknownCaller)
    }

    async fn placed(&self, node: &NodeName, identity: &SpiffeId) -> Result<(), Denial> {
        let snapshot = self.config.borrow().snapshot.clone();
        let is_placed = snapshot.workloads_on(node).any(|workload| workload.identity == *identity);
        if is_placed { Ok(()) } else { Err(Denial::NotPlaced { identity: identity.clone(), node: node.clone() }) }
    }
}
