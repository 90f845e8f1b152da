//! Gateways: where traffic from outside the mesh comes in, and where it goes from there.

use std::fmt;
use std::sync::Arc;

use super::hosts::HostIndex;
use super::rule::{Backend, BackendTarget, RuleRef};
use super::table::RouteTable;
use crate::label_set::LabelSet;
use crate::policy::{HostPattern, Selector};

/// A Gateway of either API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The object's namespace.
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: Arc<str>,
    /// Whose listeners these are.
    pub pods: GatewayPods,
    /// Where it listens, in the order of the object.
    pub listeners: Vec<Arc<Listener>>,
    /// What it shows to backends to which a BackendTLSPolicy has TLS begun (`spec.tls.backend`).
    pub shown: Option<Arc<Credential>>,
}

/// Which pods are a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayPods {
    /// Those that run for this object alone (Gateway API).
    Own,
    /// Those with the labels, in any namespace; none stands for any labels (Istio).
    Selected(Option<Selector>),
}

/// A port, and what is served there to some hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The gateway, as `namespace/name`.
    pub gateway: Arc<str>,
    /// Its name among the gateway's.
    pub name: Arc<str>,
    /// The gateway's port, as its clients know it.
    pub port: u16,
    /// The hosts that it is for. Of several listeners of one port that are for a host, the most specific has it.
    pub hosts: Vec<HostPattern>,
    /// What becomes of TLS.
    pub tls: Tls,
    /// What is carried.
    pub serves: Serves,
}

/// What a listener does with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// There is none.
    None,
    /// It ends here.
    Terminate(Arc<Termination>),
    /// It goes on to the backend, which is chosen by the server's name in the client's first message (SNI).
    Passthrough,
}

/// How TLS ends at a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Termination {
    /// The certificates to choose from, by their names. None where those that are named do not exist: handshakes fail then.
    pub credentials: Vec<Arc<Credential>>,
    /// Whether clients need certificates.
    pub clients: ClientCertificates,
    /// Whether TLS 1.2 is refused.
    pub only_tls13: bool,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    NotAsked,
    /// They need one, issued under one of these roots (DER). Without roots nobody has one.
    Required(Arc<[Arc<[u8]>]>),
    /// They may show one, issued under one of these roots (DER).
    Optional(Arc<[Arc<[u8]>]>),
    /// They may show any; of those that are not issued under one of these roots (DER) nobody is told.
    Any(Arc<[Arc<[u8]>]>),
}

/// A certificate and its key, as a Secret has them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    /// The Secret, as `namespace/name`.
    pub name: Arc<str>,
    /// The chain, the own certificate first (DER).
    pub chain: Vec<Arc<[u8]>>,
    /// The private key: PKCS #8, PKCS #1 or SEC 1 (DER).
    pub key: Arc<[u8]>,
    /// Roots of clients' certificates that stand beside it (`ca.crt`; DER).
    pub roots: Arc<[Arc<[u8]>]>,
}

/// The key is nobody's to read.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("name", &self.name).field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// What a listener carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serves {
    /// Requests.
    Requests {
        /// Where they go.
        table: Arc<RouteTable>,
        /// Every request is redirected to the same place by https.
        to_https: bool,
    },
    /// Connections; the first that is for the server's name has it.
    Connections(Vec<ConnectionRoute>),
}

/// Where connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRoute {
    /// What says so.
    pub at: RuleRef,
    /// The servers' names that it is for; any, and connections without TLS, where it names none.
    pub hosts: Vec<HostPattern>,
    /// The destinations by weight.
    pub backends: Vec<Backend>,
}

impl Gateway {
    /// Whether the pod of these labels, that runs for the Gateway API's Gateway of that name, is one of its pods.
    #[must_use]
    pub fn runs_as(&self, namespace: &str, name: &str, labels: Option<&LabelSet>) -> bool {
        match &self.pods {
            GatewayPods::Own => *self.namespace == *namespace && *self.name == *name,
            GatewayPods::Selected(None) => labels.is_some(),
            GatewayPods::Selected(Some(selector)) => labels.is_some_and(|labels| selector.selects(labels)),
        }
    }
}

impl Listener {
    /// Where what it carries goes.
    #[must_use]
    pub fn targets(&self) -> Vec<&BackendTarget> {
        match &self.serves {
            Serves::Requests { table, .. } => {
                table.hosts().iter().flat_map(|hosts| &hosts.rules).flat_map(|rule| rule.targets()).collect()
            }
            Serves::Connections(routes) => {
                routes.iter().flat_map(|route| &route.backends).map(|backend| &backend.target).collect()
            }
        }
    }

    /// Where a connection for the server of that name goes.
    #[must_use]
    pub fn connection_route(&self, server: Option<&str>) -> Option<&ConnectionRoute> {
        let Serves::Connections(routes) = &self.serves else { return None };
        routes.iter().find(|route| {
            route.hosts.is_empty() || server.is_some_and(|server| route.hosts.iter().any(|host| host.matches(server)))
        })
    }
}

/// What there is for a request at a gateway.
#[derive(Debug, Clone, Copy)]
pub enum Entered<'a> {
    /// The rules of the listener that its host belongs to.
    Rules(&'a Arc<Listener>, &'a Arc<RouteTable>),
    /// The same by https, and nothing else.
    ByHttps(&'a Arc<Listener>),
}

/// Why there is nothing for a request at a gateway's port. A client may ask another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// No listener is for its host, or the one that is carries connections.
    #[error("no route matches the request")]
    NoRoute,
    /// Its connection showed the certificate of another listener.
    #[error("this connection is another host's")]
    OthersConnection,
}

impl NotServed {
    /// The status that it is answered with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NoRoute => 404,
            Self::OthersConnection => 421,
        }
    }
}

/// The listeners of one port.
#[derive(Debug, Clone, Default)]
pub struct PortListeners {
    all: Vec<Arc<Listener>>,
    index: HostIndex,
}

impl PortListeners {
    /// Those for the same host: the first has it.
    #[must_use]
    pub fn new(all: Vec<Arc<Listener>>) -> Self {
        let index = HostIndex::build(all.iter().map(|listener| &*listener.hosts));
        Self { all, index }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Arc<Listener>] {
        &self.all
    }

    /// Whether clients begin with TLS here. Listeners of one port agree, or the first has its way.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.all.first().is_some_and(|listener| listener.tls != Tls::None)
    }

    /// The listener for a host: what a request asks for, or the server's name in TLS, in lower case and without a port.
    #[must_use]
    pub fn for_host(&self, host: &str) -> Option<&Arc<Listener>> {
        self.all.get(self.index.find(host)?)
    }

    /// What there is for a request for a host, on a connection in which TLS ended here or not, for a server of that name, of a
    /// client that speaks https, here or to a proxy before the gateway, or not.
    ///
    /// # Errors
    /// There is nothing for it.
    pub fn enter(
        &self,
        host: &str,
        server: Option<&str>,
        (tls, https): (bool, bool),
    ) -> Result<Entered<'_>, NotServed> {
        let listener = self.for_host(host).ok_or(NotServed::NoRoute)?;
        // A certificate of one listener says nothing of another's hosts (RFC 9110, section 7.4).
        let shown = server.and_then(|server| self.for_host(server));
        if tls && shown.is_some_and(|shown| !Arc::ptr_eq(shown, listener)) {
            return Err(NotServed::OthersConnection);
        }
        let Serves::Requests { table, to_https } = &listener.serves else { return Err(NotServed::NoRoute) };
        Ok(if *to_https && !https { Entered::ByHttps(listener) } else { Entered::Rules(listener, table) })
    }

    /// The listener for a client that names no server.
    #[must_use]
    pub fn for_any_host(&self) -> Option<&Arc<Listener>> {
        let any = HostPattern::Suffix("".into());
        self.all.iter().find(|listener| listener.hosts.contains(&any))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(name: &str, hosts: &[&str]) -> Arc<Listener> {
        let host = |host: &&str| match host.strip_prefix('*') {
            Some(end) => HostPattern::Suffix(end.into()),
            None => HostPattern::Exact((*host).into()),
        };
        Arc::new(Listener {
            gateway: "shop/edge".into(),
            name: name.into(),
            port: 80,
            hosts: hosts.iter().map(host).collect(),
            tls: Tls::None,
            serves: Serves::Connections(Vec::new()),
        })
    }

    #[test]
    fn the_most_specific_listener_has_a_host() {
        let all = [
            listener("any", &["*"]),
            listener("wild", &["*.example.com"]),
            listener("deep", &["*.a.example.com"]),
            listener("exact", &["b.a.example.com", "example.org"]),
            listener("late", &["example.org"]),
        ];
        let port = PortListeners::new(all.to_vec());
        for (host, expected) in [
            ("example.org", "exact"),
            ("b.a.example.com", "exact"),
            ("c.a.example.com", "deep"),
            ("c.example.com", "wild"),
            ("example.com", "any"),
            ("", "any"),
        ] {
            assert_eq!(port.for_host(host).map(|found| &*found.name), Some(expected), "{host}");
        }
        assert_eq!(port.for_any_host().map(|found| &*found.name), Some("any"));
        let without = PortListeners::new(all[1..].to_vec());
        assert!(without.for_host("example.com").is_none() && without.for_any_host().is_none());
    }

    #[test]
    fn a_key_is_not_told() {
        let key: Arc<[u8]> = Arc::from(&b"secret"[..]);
        let credential = Credential { name: "shop/cert".into(), chain: Vec::new(), key, roots: Arc::from([]) };
        assert_eq!(format!("{credential:?}"), "Credential { name: \"shop/cert\", chain: 0, .. }");
    }
}
