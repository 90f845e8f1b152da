//! Policies for waypoints (`targetRefs`), by what they are attached to.

use std::collections::HashMap;
use std::sync::Arc;

use super::{AuthorizationPolicy, PolicyName};
use crate::l7::Waypoint;
use crate::model::Service;

/// What a policy is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PolicyTarget {
    /// Everything that goes by the waypoint of that Gateway.
    Gateway(Arc<PolicyName>),
    /// What is sent to that Service.
    Service(Arc<PolicyName>),
    /// Everything that goes by waypoints of that GatewayClass.
    GatewayClass(Arc<str>),
}

/// A policy and what it is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetedPolicy {
    /// To any of these.
    pub targets: Vec<PolicyTarget>,
    /// The policy.
    pub policy: Arc<AuthorizationPolicy>,
}

/// Policies for waypoints, in the order given.
#[derive(Debug, Clone, Default)]
pub(super) struct Targeted {
    all: Vec<Arc<TargetedPolicy>>,
    by_target: HashMap<PolicyTarget, Vec<usize>>,
}

impl PartialEq for Targeted {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl Eq for Targeted {}

impl Targeted {
    pub(super) fn build(all: Vec<Arc<TargetedPolicy>>) -> Self {
        let mut by_target: HashMap<_, Vec<_>> = HashMap::new();
        for (index, policy) in all.iter().enumerate() {
            for target in &policy.targets {
                by_target.entry(target.clone()).or_default().push(index);
            }
        }
        Self { all, by_target }
    }

    pub(super) fn all(&self) -> &[Arc<TargetedPolicy>] {
        &self.all
    }

    /// Those about what goes by a waypoint, to a Service if one is asked for.
    pub(super) fn of(&self, waypoint: &Waypoint, service: Option<&Service>) -> Vec<&Arc<AuthorizationPolicy>> {
        if self.all.is_empty() {
            return Vec::new();
        }
        let named = |namespace: &Arc<str>, name: &Arc<str>| {
            Arc::new(PolicyName { namespace: Arc::clone(namespace), name: Arc::clone(name) })
        };
        let targets = [
            Some(PolicyTarget::Gateway(named(&waypoint.namespace, &waypoint.name))),
            Some(PolicyTarget::GatewayClass(Arc::clone(&waypoint.class))),
            service.map(|service| PolicyTarget::Service(named(&service.namespace, &service.name))),
        ];
        let found = targets.iter().flatten().filter_map(|target| self.by_target.get(target));
        let mut indexes: Vec<usize> = found.flatten().copied().collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes.into_iter().filter_map(|index| self.all.get(index)).map(|targeted| &targeted.policy).collect()
    }
}
