//! Policies, as a daemon or a directory of manifests has them.

use std::sync::Arc;

use mesh_core::Policies;
use mesh_core::policy::{AuthorizationPolicy, ClientTlsRule, HostPattern, PeerAuthentication, Scope, Selector};
use serde::{Deserialize, Serialize};

/// A policy of one of Istio's kinds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// `AuthorizationPolicy`, `PeerAuthentication` or `DestinationRule`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How far it reaches: `mesh`, `namespace`, `workload`, or `host` for a DestinationRule.
    pub scope: String,
    /// The labels that it selects by, or the host; none for all in its scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selects: Option<String>,
    /// What it does: an action, a mode of mTLS, or a mode of TLS; `UNSET` where it leaves that to others.
    pub action: String,
    /// Whether it only reports what it would do.
    pub dry_run: bool,
    /// How many rules it has, or ports of which it says something else.
    pub rules: usize,
}

/// A policy in the snapshot.
#[derive(Debug, Clone, Copy)]
pub enum PolicyRef<'a> {
    /// Who may talk.
    Authorization(&'a Arc<AuthorizationPolicy>),
    /// Whether plaintext is taken.
    PeerAuthentication(&'a Arc<PeerAuthentication>),
    /// How clients reach a host.
    ClientTls(&'a Arc<ClientTlsRule>),
}

impl<'a> PolicyRef<'a> {
    /// All policies, kind by kind.
    pub fn all(policies: &'a Policies) -> impl Iterator<Item = Self> {
        let authorization = policies.authorization().iter().map(Self::Authorization);
        let peer_authentication = policies.peer_authentication().iter().map(Self::PeerAuthentication);
        authorization.chain(peer_authentication).chain(policies.client_tls().iter().map(Self::ClientTls))
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &'a str {
        match self {
            Self::Authorization(policy) => &policy.name.namespace,
            Self::PeerAuthentication(policy) => &policy.name.namespace,
            Self::ClientTls(rule) => &rule.name.namespace,
        }
    }

    /// As it is told.
    #[must_use]
    pub fn describe(self, root_namespace: &str) -> Policy {
        let namespace = self.namespace();
        let scope = |selector: Option<&Selector>| Scope::of(namespace, root_namespace, selector).as_str().to_owned();
        let (kind, name, scope, selects, action, dry_run, rules) = match self {
            Self::Authorization(policy) => (
                "AuthorizationPolicy",
                &policy.name,
                scope(policy.selector.as_ref()),
                policy.selector.as_ref().map(Selector::to_string),
                policy.action.as_str(),
                policy.dry_run,
                policy.rules.len(),
            ),
            Self::PeerAuthentication(policy) => (
                "PeerAuthentication",
                &policy.name,
                scope(policy.selector.as_ref()),
                policy.selector.as_ref().map(Selector::to_string),
                policy.mode.map_or("UNSET", |mode| mode.as_str()),
                false,
                policy.ports.len(),
            ),
            Self::ClientTls(rule) => (
                "DestinationRule",
                &rule.name,
                "host".to_owned(),
                Some(host(&rule.host)),
                rule.tls.map_or("UNSET", |tls| tls.as_str()),
                false,
                rule.ports.len(),
            ),
        };
        Policy {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.name.to_string(),
            scope,
            selects,
            action: action.to_owned(),
            dry_run,
            rules,
        }
    }
}

fn host(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Suffix(end) => format!("*{end}"),
    }
}
