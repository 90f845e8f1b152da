//! PeerAuthentications: whether a workload takes plaintext.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::index::Scoped;
use super::{PolicyName, Selector};
use crate::model::Workload;
use crate::snapshot::Snapshot;

/// What a workload takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Connections with a proven identity alone.
    Strict,
    /// Plaintext too.
    Permissive,
    /// As [`Mode::Permissive`]: a tunnel is taken as well, since its client cannot know better (as in ambient mode).
    Disable,
}

impl Mode {
    /// As Istio writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "STRICT",
            Self::Permissive => "PERMISSIVE",
            Self::Disable => "DISABLE",
        }
    }
}

/// A PeerAuthentication. Where a mode is none (UNSET), the next wider level decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// The workloads of its namespace that it is about; none for all, or from the root namespace for the mesh.
    pub selector: Option<Selector>,
    /// The mode of all ports.
    pub mode: Option<Mode>,
    /// The modes of some ports of the workload; only with a selector.
    pub ports: BTreeMap<u16, Option<Mode>>,
}

impl Scoped for PeerAuthentication {
    fn namespace(&self) -> &Arc<str> {
        &self.name.namespace
    }

    fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }
}

/// Where a mode comes from, from the narrowest level to the widest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// `portLevelMtls` of the PeerAuthentication that selects the workload.
    Port,
    /// The PeerAuthentication that selects the workload.
    Workload,
    /// The namespace's.
    Namespace,
    /// The root namespace's.
    Mesh,
    /// No PeerAuthentication says anything.
    Default,
}

impl Level {
    /// As text, for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Workload => "workload",
            Self::Namespace => "namespace",
            Self::Mesh => "mesh",
            Self::Default => "default",
        }
    }
}

/// The mode in force for one port of a workload, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveMode {
    /// The mode.
    pub mode: Mode,
    /// The level that decided.
    pub level: Level,
    /// The PeerAuthentication that decided; none by default.
    pub policy: Option<Arc<PolicyName>>,
}

/// The mode of a workload's port: PERMISSIVE unless a PeerAuthentication says more, of which the narrowest decides
/// and among equals the oldest.
#[must_use]
pub fn effective_mode(snapshot: &Snapshot, workload: &Workload, port: u16) -> EffectiveMode {
    let root = snapshot.policies().root_namespace();
    let policies = snapshot.policies().peer_authentication_of(workload);
    let selected = policies.iter().find(|policy| policy.selector.is_some());
    let whole = |in_root: bool| {
        policies.iter().find(|policy| policy.selector.is_none() && (&*policy.name.namespace == root) == in_root)
    };
    let at = |level, policy: Option<&&Arc<PeerAuthentication>>, mode: Option<Mode>| {
        let (policy, mode) = (policy?, mode?);
        Some(EffectiveMode { mode, level, policy: Some(Arc::clone(&policy.name)) })
    };
    let port = selected.and_then(|policy| policy.ports.get(&port).copied()?);
    let mode_of = |policy: Option<&&Arc<PeerAuthentication>>| policy.and_then(|policy| policy.mode);
    let (namespace, mesh) = (whole(false), whole(true));
    at(Level::Port, selected, port)
        .or_else(|| at(Level::Workload, selected, mode_of(selected)))
        .or_else(|| at(Level::Namespace, namespace, mode_of(namespace)))
        .or_else(|| at(Level::Mesh, mesh, mode_of(mesh)))
        .unwrap_or(EffectiveMode { mode: Mode::Permissive, level: Level::Default, policy: None })
}
