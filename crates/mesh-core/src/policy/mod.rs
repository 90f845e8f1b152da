//! Who may talk to whom: Istio's AuthorizationPolicy, PeerAuthentication and the tls of DestinationRule, as far as a
//! connection's addresses and proven identity decide.
//!
//! Semantics: istio.io, reference/config/security/{authorization-policy,peer_authentication} and
//! reference/config/networking/destination-rule; what ambient mode makes of them where nobody reads HTTP.

mod authorization;
mod authorize;
mod client_tls;
mod explain;
mod index;
mod ip_blocks;
mod pattern;
mod peer_authentication;
mod ports;
pub mod request;
mod request_authentication;
mod selector;
mod targeted;

use std::fmt;
use std::sync::Arc;

pub use authorization::{Action, AuthorizationPolicy, Clause, Rule, ServiceAccounts, Term, Test};
pub use authorize::{
    Answered, Authorization, Basis, Decision, Denial, Facts, Peer, Permit, Question, Shadow, authorize,
    authorize_connection, authorize_request,
};
pub use client_tls::{ClientTls, ClientTlsRule, HostPattern};
pub use explain::{Considered, Explanation, Miss, RequestExplanation, RuleOutcome, explain, explain_request};
pub use ip_blocks::{IpBlock, IpBlockError, IpBlocks};
pub use pattern::{Pattern, PatternError, Patterns};
pub use peer_authentication::{EffectiveMode, Level, Mode, PeerAuthentication, effective_mode};
pub use ports::{mentioned_ports, unmentioned_port};
pub use request::{PathPatterns, RequestFacts, RequestTest};
pub use request_authentication::{ClaimField, KeySource, RequestAuthentication, TokenPlace, TokenRule};
pub use selector::{Scope, Selector};
pub use targeted::{PolicyTarget, TargetedPolicy};

use client_tls::ClientTlsRules;
use index::{Indexed, Scoped};
use targeted::Targeted;

use crate::l7::Waypoint;
use crate::label_set::LabelSet;
use crate::locality::LocalitySetting;
use crate::model::{Service, Workload};

/// Istio's default root namespace, whose policies are the whole mesh's.
pub const ROOT_NAMESPACE: &str = "istio-system";

/// What names a policy among those of its kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// All policies, indexed so that a decision costs nothing for those that are about other workloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policies {
    root_namespace: Arc<str>,
    authorization: Indexed<AuthorizationPolicy>,
    peer_authentication: Indexed<PeerAuthentication>,
    client_tls: ClientTlsRules,
    locality: LocalitySetting,
    targeted: Targeted<AuthorizationPolicy>,
    request_authentication: Indexed<RequestAuthentication>,
    targeted_authentication: Targeted<RequestAuthentication>,
}

impl Default for Policies {
    fn default() -> Self {
        Self::build(ROOT_NAMESPACE.into(), Vec::new(), Vec::new(), Vec::new())
    }
}

impl Policies {
    /// Indexes policies. Each list has the oldest first: among several PeerAuthentications or DestinationRules for one
    /// thing, the first is in force.
    #[must_use]
    pub fn build(
        root_namespace: Arc<str>,
        authorization: Vec<Arc<AuthorizationPolicy>>,
        peer_authentication: Vec<Arc<PeerAuthentication>>,
        client_tls: Vec<Arc<ClientTlsRule>>,
    ) -> Self {
        Self {
            root_namespace,
            authorization: Indexed::build(authorization),
            peer_authentication: Indexed::build(peer_authentication),
            client_tls: ClientTlsRules::build(client_tls),
            locality: LocalitySetting::default(),
            targeted: Targeted::default(),
            request_authentication: Indexed::build(Vec::new()),
            targeted_authentication: Targeted::default(),
        }
    }

    /// The same with the mesh's setting of which localities are preferred.
    #[must_use]
    pub fn with_locality(self, locality: LocalitySetting) -> Self {
        Self { locality, ..self }
    }

    /// Which localities are preferred where no DestinationRule says so.
    #[must_use]
    pub const fn locality(&self) -> &LocalitySetting {
        &self.locality
    }

    /// The same with policies for waypoints, the oldest first.
    #[must_use]
    pub fn with_targeted(mut self, targeted: Vec<Arc<TargetedPolicy>>) -> Self {
        self.targeted = Targeted::build(targeted);
        self
    }

    /// The same with RequestAuthentications, the oldest first: those that gateways' pods are selected by, and those for
    /// waypoints.
    #[must_use]
    pub fn with_request_authentication(
        mut self,
        selecting: Vec<Arc<RequestAuthentication>>,
        targeted: Vec<Arc<TargetedPolicy<RequestAuthentication>>>,
    ) -> Self {
        self.request_authentication = Indexed::build(selecting);
        self.targeted_authentication = Targeted::build(targeted);
        self
    }

    /// Whether there is any RequestAuthentication.
    #[must_use]
    pub fn has_request_authentication(&self) -> bool {
        !(self.request_authentication.all().is_empty() && self.targeted_authentication.all().is_empty())
    }

    /// All RequestAuthentications with `targetRefs`, in the order given.
    #[must_use]
    pub fn targeted_authentication(&self) -> &[Arc<TargetedPolicy<RequestAuthentication>>] {
        self.targeted_authentication.all()
    }

    /// The RequestAuthentications about what goes by a waypoint, to a Service if one is asked for, in the order given.
    #[must_use]
    pub fn authentication_for_waypoint(
        &self,
        waypoint: &Waypoint,
        service: Option<&Service>,
    ) -> Vec<&Arc<RequestAuthentication>> {
        self.targeted_authentication.of(waypoint, service)
    }

    /// The AuthorizationPolicies about what comes in at a gateway: those that select its pod, if that is known, then those that
    /// name the Gateway.
    #[must_use]
    pub fn authorization_for_gateway(
        &self,
        namespace: &str,
        name: &str,
        pod: Option<&Workload>,
    ) -> Vec<&Arc<AuthorizationPolicy>> {
        self.at_gateway(&self.authorization, &self.targeted, (namespace, name), pod)
    }

    /// The RequestAuthentications about what comes in at a gateway: those that select its pod, if that is known, then those
    /// that name the Gateway.
    #[must_use]
    pub fn authentication_for_gateway(
        &self,
        namespace: &str,
        name: &str,
        pod: Option<&Workload>,
    ) -> Vec<&Arc<RequestAuthentication>> {
        self.at_gateway(&self.request_authentication, &self.targeted_authentication, (namespace, name), pod)
    }

    fn at_gateway<'a, P: Scoped>(
        &'a self,
        selecting: &'a Indexed<P>,
        targeted: &'a Targeted<P>,
        (namespace, name): (&str, &str),
        pod: Option<&Workload>,
    ) -> Vec<&'a Arc<P>> {
        let mut found = pod.map_or_else(Vec::new, |pod| self.applying(selecting, &pod.namespace, &pod.labels));
        found.extend(targeted.of_gateway(namespace, name));
        found
    }

    /// All policies for waypoints, in the order given.
    #[must_use]
    pub fn targeted(&self) -> &[Arc<TargetedPolicy>] {
        self.targeted.all()
    }

    /// The AuthorizationPolicies about what goes by a waypoint, to a Service if one is asked for, in the order given.
    #[must_use]
    pub fn for_waypoint(&self, waypoint: &Waypoint, service: Option<&Service>) -> Vec<&Arc<AuthorizationPolicy>> {
        self.targeted.of(waypoint, service)
    }

    /// The namespace whose policies are the whole mesh's.
    #[must_use]
    pub fn root_namespace(&self) -> &str {
        &self.root_namespace
    }

    /// All AuthorizationPolicies, in the order given.
    #[must_use]
    pub fn authorization(&self) -> &[Arc<AuthorizationPolicy>] {
        self.authorization.all()
    }

    /// All PeerAuthentications, in the order given.
    #[must_use]
    pub fn peer_authentication(&self) -> &[Arc<PeerAuthentication>] {
        self.peer_authentication.all()
    }

    /// All DestinationRules, in the order given.
    #[must_use]
    pub fn client_tls(&self) -> &[Arc<ClientTlsRule>] {
        self.client_tls.all()
    }

    /// The AuthorizationPolicies that are about `workload`, in the order given to [`Policies::build`].
    #[must_use]
    pub fn authorization_of(&self, workload: &Workload) -> Vec<&Arc<AuthorizationPolicy>> {
        self.applying(&self.authorization, &workload.namespace, &workload.labels)
    }

    /// The PeerAuthentications that are about `workload`, in the order given to [`Policies::build`].
    #[must_use]
    pub fn peer_authentication_of(&self, workload: &Workload) -> Vec<&Arc<PeerAuthentication>> {
        let found = self.applying(&self.peer_authentication, &workload.namespace, &workload.labels);
        // A selector reaches no further than its own namespace, other than an AuthorizationPolicy's.
        let reaches = |policy: &&Arc<PeerAuthentication>| {
            policy.selector.is_none() || *policy.name.namespace == *workload.namespace
        };
        found.into_iter().filter(reaches).collect()
    }

    /// The rule that says how clients in `namespace` with `labels` reach the host, if there is one.
    #[must_use]
    pub fn client_tls_for(
        &self,
        client: Option<(&str, &LabelSet)>,
        host: &str,
        host_namespace: &str,
    ) -> Option<&Arc<ClientTlsRule>> {
        self.client_tls.find(client, host, host_namespace, &self.root_namespace)
    }

    fn applying<'a, T: Scoped>(&self, policies: &'a Indexed<T>, namespace: &str, labels: &LabelSet) -> Vec<&'a Arc<T>> {
        policies.applying(namespace, &self.root_namespace, labels)
    }
}
