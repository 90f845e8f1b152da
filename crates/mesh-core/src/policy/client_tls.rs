//! What clients are told of TLS by DestinationRules.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use super::{PolicyName, Selector};
use crate::l7::TrafficRule;
use crate::label_set::LabelSet;

/// How a client reaches a host (`trafficPolicy.tls.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientTls {
    /// As plaintext.
    Disable,
    /// By the mesh's own mTLS, and in no other way.
    IstioMutual,
    /// By TLS that the client's side originates; with a connection's worth of knowledge, it is refused.
    Simple,
    /// By TLS with a client certificate that the client's side originates; refused as [`ClientTls::Simple`].
    Mutual,
    /// The rule cannot be read: nothing is sent.
    Unreadable,
}

impl ClientTls {
    /// As Istio writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "DISABLE",
            Self::IstioMutual => "ISTIO_MUTUAL",
            Self::Simple => "SIMPLE",
            Self::Mutual => "MUTUAL",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A DestinationRule, as far as a connection is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTlsRule {
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// The hosts that it is about.
    pub host: HostPattern,
    /// The namespaces whose clients it is for; none for all.
    pub exported_to: Option<Vec<Arc<str>>>,
    /// The clients of its own namespace that it is for; none for all clients.
    pub clients: Option<Selector>,
    /// For all ports.
    pub tls: Option<ClientTls>,
    /// For some ports of the Service; there, nothing of `tls` is left.
    pub ports: BTreeMap<u16, Option<ClientTls>>,
    /// What it says beside TLS, of the application layer.
    pub traffic: Arc<TrafficRule>,
}

impl ClientTlsRule {
    /// What it says of a port of the Service.
    #[must_use]
    pub fn tls(&self, port: u16) -> Option<ClientTls> {
        self.ports.get(&port).copied().unwrap_or(self.tls)
    }

    /// Whether it says anything of TLS.
    #[must_use]
    pub fn says_something(&self) -> bool {
        self.tls.is_some() || !self.ports.is_empty()
    }

    fn is_for(&self, client: Option<(&str, &LabelSet)>) -> bool {
        let exported = match (&self.exported_to, client) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(namespaces), Some((namespace, _))) => namespaces.iter().any(|known| **known == *namespace),
        };
        let selected = match (&self.clients, client) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(selector), Some((namespace, labels))) => {
                *namespace == *self.name.namespace && selector.selects(labels)
            }
        };
        exported && selected
    }
}

/// Hosts: one, or all that end alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// A full host name.
    Exact(Arc<str>),
    /// All that end so; `*.shop` ends in `.shop`, `*` in nothing.
    Suffix(Arc<str>),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(end) => write!(f, "*{end}"),
        }
    }
}

impl HostPattern {
    /// Whether that host is one of them.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *host,
            Self::Suffix(end) => host.ends_with(&**end),
        }
    }
}

/// DestinationRules by namespace and host.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientTlsRules {
    all: Vec<Arc<ClientTlsRule>>,
    by_namespace: HashMap<Arc<str>, ByHost>,
}

#[derive(Debug, Clone, Default)]
struct ByHost {
    exact: HashMap<Arc<str>, Vec<usize>>,
    /// The longest suffix first.
    suffixes: Vec<(Arc<str>, usize)>,
}

impl PartialEq for ClientTlsRules {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl Eq for ClientTlsRules {}

impl ClientTlsRules {
    pub(super) fn build(all: Vec<Arc<ClientTlsRule>>) -> Self {
        let mut by_namespace: HashMap<Arc<str>, ByHost> = HashMap::new();
        for (index, rule) in all.iter().enumerate() {
            let hosts = by_namespace.entry(Arc::clone(&rule.name.namespace)).or_default();
            match &rule.host {
                HostPattern::Exact(host) => hosts.exact.entry(Arc::clone(host)).or_default().push(index),
                HostPattern::Suffix(end) => hosts.suffixes.push((Arc::clone(end), index)),
            }
        }
        for hosts in by_namespace.values_mut() {
            // Stable: among equals the oldest stays first.
            hosts.suffixes.sort_by_key(|(end, _)| std::cmp::Reverse(end.len()));
        }
        Self { all, by_namespace }
    }

    pub(super) fn all(&self) -> &[Arc<ClientTlsRule>] {
        &self.all
    }

    /// The rule in force: of the client's namespace, else of the host's, else of the root namespace; in each the one
    /// with the most specific host, and one for some clients before one for all.
    pub(super) fn find(
        &self,
        client: Option<(&str, &LabelSet)>,
        host: &str,
        host_namespace: &str,
        root: &str,
    ) -> Option<&Arc<ClientTlsRule>> {
        if self.all.is_empty() {
            return None;
        }
        let client_namespace = client.map(|(namespace, _)| namespace);
        let namespaces = client_namespace.into_iter().chain([host_namespace, root]);
        namespaces.into_iter().find_map(|namespace| self.find_in(namespace, client, host))
    }

    fn find_in(&self, namespace: &str, client: Option<(&str, &LabelSet)>, host: &str) -> Option<&Arc<ClientTlsRule>> {
        let hosts = self.by_namespace.get(namespace)?;
        let rule = |index: usize| self.all.get(index).filter(|rule| rule.is_for(client));
        let exact = hosts.exact.get(host).into_iter().flatten();
        let exact: Vec<_> = exact.filter_map(|index| rule(*index)).collect();
        if let Some(best) = for_some_before_all(&exact) {
            return Some(best);
        }
        let ending = hosts.suffixes.iter().filter(|(end, _)| host.ends_with(&**end));
        let mut ending = ending.filter_map(|(end, index)| Some((end.len(), rule(*index)?))).peekable();
        let longest = ending.peek().map(|(length, _)| *length)?;
        let equals: Vec<_> = ending.take_while(|(length, _)| *length == longest).map(|(_, rule)| rule).collect();
        for_some_before_all(&equals)
    }
}

/// Of rules for the same hosts, those for some clients come before those for all; among them the oldest that says
/// anything of TLS.
fn for_some_before_all<'a>(rules: &[&'a Arc<ClientTlsRule>]) -> Option<&'a Arc<ClientTlsRule>> {
    let best = rules.iter().min_by_key(|rule| (rule.clients.is_none(), !rule.says_something()));
    best.copied()
}
