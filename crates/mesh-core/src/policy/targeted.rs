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
    /// What is sent to hosts of that ServiceEntry.
    ServiceEntry(Arc<PolicyName>),
    /// Everything that goes by waypoints of that GatewayClass.
    GatewayClass(Arc<str>),
}

impl PolicyTarget {
    /// What a policy names that is attached to a Service, or to the ServiceEntry whose host it is.
    #[must_use]
    pub fn of_service(service: &Service) -> Self {
        let named = |name: &Arc<str>| {
            Arc::new(PolicyName { namespace: Arc::clone(&service.namespace), name: Arc::clone(name) })
        };
        match &service.entry {
            None => Self::Service(named(&service.name)),
            Some(entry) => Self::ServiceEntry(named(&entry.object)),
        }
    }
}

/// A policy and what it is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetedPolicy<P = AuthorizationPolicy> {
    /// To any of these.
    pub targets: Vec<PolicyTarget>,
    /// The policy.
    pub policy: Arc<P>,
}

impl<P> TargetedPolicy<P> {
    /// A policy with what it is attached to, if that is anything.
    #[must_use]
    pub fn of(targets: &[PolicyTarget], policy: &Arc<P>) -> Option<Arc<Self>> {
        (!targets.is_empty()).then(|| Arc::new(Self { targets: targets.to_vec(), policy: Arc::clone(policy) }))
    }
}

/// Policies of one kind for waypoints, in the order given.
#[derive(Debug, Clone)]
pub(super) struct Targeted<P> {
    all: Vec<Arc<TargetedPolicy<P>>>,
    by_target: HashMap<PolicyTarget, Vec<usize>>,
}

impl<P> Default for Targeted<P> {
    fn default() -> Self {
        Self { all: Vec::new(), by_target: HashMap::new() }
    }
}

impl<P: PartialEq> PartialEq for Targeted<P> {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl<P: Eq> Eq for Targeted<P> {}

impl<P> Targeted<P> {
    pub(super) fn build(all: Vec<Arc<TargetedPolicy<P>>>) -> Self {
        let mut by_target: HashMap<_, Vec<_>> = HashMap::new();
        for (index, policy) in all.iter().enumerate() {
            for target in &policy.targets {
                by_target.entry(target.clone()).or_default().push(index);
            }
        }
        Self { all, by_target }
    }

    pub(super) fn all(&self) -> &[Arc<TargetedPolicy<P>>] {
        &self.all
    }

    /// Those about a Gateway, by its name.
    pub(super) fn of_gateway(&self, namespace: &str, name: &str) -> Vec<&Arc<P>> {
        if self.all.is_empty() {
            return Vec::new();
        }
        self.about(&[PolicyTarget::Gateway(PolicyName { namespace: namespace.into(), name: name.into() }.into())])
    }

    /// Those about what goes by a waypoint, to a Service if one is asked for.
    pub(super) fn of(&self, waypoint: &Waypoint, service: Option<&Service>) -> Vec<&Arc<P>> {
        if self.all.is_empty() {
            return Vec::new();
        }
        let named = |namespace: &Arc<str>, name: &Arc<str>| {
            Arc::new(PolicyName { namespace: Arc::clone(namespace), name: Arc::clone(name) })
        };
        let mut targets = vec![
            PolicyTarget::Gateway(named(&waypoint.namespace, &waypoint.name)),
            PolicyTarget::GatewayClass(Arc::clone(&waypoint.class)),
        ];
        targets.extend(service.map(PolicyTarget::of_service));
        self.about(&targets)
    }

    fn about(&self, targets: &[PolicyTarget]) -> Vec<&Arc<P>> {
        let found = targets.iter().filter_map(|target| self.by_target.get(target));
        let mut indexes: Vec<usize> = found.flatten().copied().collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes.into_iter().filter_map(|index| self.all.get(index)).map(|targeted| &targeted.policy).collect()
    }
}
