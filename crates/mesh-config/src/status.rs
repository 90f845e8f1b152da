//! What translation finds of Gateways, ListenerSets, routes and BackendTLSPolicies, in the words of the Gateway API's conditions, for whoever writes their status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::gateway_api::ListenerProtocol;
use crate::object::Key;

/// What is to be said of the Gateways, routes and BackendTLSPolicies that are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statuses {
    /// Gateways that let traffic in.
    pub gateways: BTreeMap<Key, GatewayStatus>,
    /// ListenerSets of such Gateways.
    pub listener_sets: BTreeMap<Key, ListenerSetStatus>,
    /// Routes, by kind and name.
    pub routes: BTreeMap<(&'static str, Key), RouteStatus>,
    /// BackendTLSPolicies.
    pub backend_tls: BTreeMap<Key, BackendTlsStatus>,
}

/// Of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayStatus {
    /// The generation of the object that was read; none where it has none.
    pub generation: Option<i64>,
    /// Its class.
    pub class: Arc<str>,
    /// Its listeners, in its order.
    pub listeners: Vec<ListenerStatus>,
    /// Which of its references that are no listener's lead nowhere.
    pub unresolved: Option<Refusal>,
    /// Whether clients whose certificates nobody vouches for are let in by some port.
    pub lets_others_in: bool,
}

/// Of a ListenerSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSetStatus {
    /// The generation of the object that was read; none where it has none.
    pub generation: Option<i64>,
    /// Its Gateway.
    pub gateway: Key,
    /// The Gateway's class.
    pub class: Arc<str>,
    /// Why the Gateway takes none of its listeners.
    pub refused: Option<Refusal>,
    /// Its listeners, in its order; none where they are not taken.
    pub listeners: Vec<ListenerStatus>,
    /// The ports that it has open, each with what a listener of it carries.
    pub ports: BTreeMap<u16, ListenerProtocol>,
}

impl ListenerSetStatus {
    /// Whether the Gateway has opened one of its listeners as it is written.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.refused.is_none() && self.listeners.iter().any(ListenerStatus::is_valid)
    }
}

/// Of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// The kinds of routes that it takes.
    pub kinds: Vec<&'static str>,
    /// How many routes are attached to it.
    pub attached: usize,
    /// Why it is not as it should be at all.
    pub refused: Option<Refusal>,
    /// Why it is another one's port and host.
    pub conflict: Option<Refusal>,
    /// Which of its references lead nowhere.
    pub unresolved: Option<Refusal>,
}

impl ListenerStatus {
    /// Whether it is open as it is written.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.refused.is_none() && self.conflict.is_none() && self.unresolved.is_none()
    }
}

/// Of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteStatus {
    /// The generation of the object that was read; none where it has none.
    pub generation: Option<i64>,
    /// Of each of its `parentRefs` that is something here, by its place.
    pub parents: BTreeMap<usize, ParentStatus>,
    /// Which of its references lead nowhere.
    pub unresolved: Option<Refusal>,
    /// What of it is not in force as it is written.
    pub partly: Option<Refusal>,
}

/// Of a route at one of its parents: why it is not attached there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParentStatus {
    /// None where it is.
    pub refused: Option<Refusal>,
}

/// Of a BackendTLSPolicy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendTlsStatus {
    /// The generation of the object that was read; none where it has none.
    pub generation: Option<i64>,
    /// The Gateways that send something to its Services: waypoints too.
    pub gateways: BTreeSet<Key>,
    /// Why it is not in force, or nothing is sent for its sake.
    pub refused: Option<Refusal>,
    /// Which of its references lead nowhere.
    pub unresolved: Option<Refusal>,
}

/// Why a condition is not as one would wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, as the Gateway API calls it.
    pub reason: &'static str,
    /// What was found.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}
