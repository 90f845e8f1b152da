//! Rules of connections to Services that nobody looks into: by where they go, who opens them, and the server that they name in TLS.

use std::net::IpAddr;
use std::sync::Arc;

use super::matching::ClientMatch;
use super::rule::{Backend, RuleRef};
use crate::model::Workload;
use crate::policy::{HostPattern, IpBlocks};

/// The rules of connections to one Service, for some clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConnections {
    /// The Service's full host name.
    pub hostname: Arc<str>,
    /// The namespace whose clients they are for; none for all that have none of their own.
    pub clients: Option<Arc<str>>,
    /// The rules; the first that matches counts.
    pub rules: Arc<[ConnectionRule]>,
}

/// Where some connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRule {
    /// What says so.
    pub at: RuleRef,
    /// Whether it is for connections that begin with TLS alone.
    pub of_tls: bool,
    /// Which connections it is for: any of them.
    pub matches: Vec<ConnectionMatch>,
    /// The destinations by weight.
    pub backends: Vec<Backend>,
}

/// A match on a connection: all that is given has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionMatch {
    /// The port that the client connected to.
    pub port: Option<u16>,
    /// The addresses of which it connected to one.
    pub addresses: Option<IpBlocks>,
    /// Who connects.
    pub client: ClientMatch,
    /// The servers of which it names one in TLS; any where there are none.
    pub servers: Vec<HostPattern>,
}

/// What is known of a connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionView<'a> {
    /// The port that the client connected to.
    pub port: u16,
    /// The address that it connected to, where known.
    pub address: Option<IpAddr>,
    /// The workload that connects, where known.
    pub client: Option<&'a Workload>,
    /// What it begins with.
    pub begun: Begun<'a>,
}

/// What a client begins a connection with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun<'a> {
    /// The first message of TLS, with the server that it names, in lower case.
    Tls(Option<&'a str>),
    /// Anything else, or nothing.
    Other,
}

impl ConnectionRule {
    /// Whether the connection is one of those that it is for.
    #[must_use]
    pub fn is_for(&self, connection: ConnectionView<'_>) -> bool {
        let server = match connection.begun {
            Begun::Tls(server) => server,
            Begun::Other if self.of_tls => return false,
            Begun::Other => None,
        };
        let names = |matched: &ConnectionMatch| {
            let is_named = |server: &str| matched.servers.iter().any(|host| host.matches(server));
            matched.servers.is_empty() || server.is_some_and(is_named)
        };
        self.matches.iter().any(|matched| matched.holds(connection) && names(matched))
    }

    /// Whether what it begins with tells if the connection is one of those.
    #[must_use]
    pub fn asks_for_tls(&self, connection: ConnectionView<'_>) -> bool {
        self.of_tls && self.matches.iter().any(|matched| matched.holds(connection))
    }
}

impl ConnectionMatch {
    /// Whether it holds, as far as what comes by the connection has no part in it.
    fn holds(&self, connection: ConnectionView<'_>) -> bool {
        let is_at = |blocks: &IpBlocks| connection.address.is_some_and(|address| blocks.contain(address));
        self.port.is_none_or(|port| port == connection.port)
            && self.addresses.as_ref().is_none_or(is_at)
            && self.client.holds(connection.client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(of_tls: bool, matched: ConnectionMatch) -> ConnectionRule {
        let at = RuleRef { kind: "VirtualService", namespace: "a".into(), object: "b".into(), index: 0, name: None };
        ConnectionRule { at, of_tls, matches: vec![matched], backends: Vec::new() }
    }

    fn view(begun: Begun<'_>) -> ConnectionView<'_> {
        ConnectionView { port: 90, address: Some([10, 96, 0, 1].into()), client: None, begun }
    }

    #[test]
    fn all_that_a_match_asks_has_to_hold() {
        let (other, named) = (view(Begun::Other), view(Begun::Tls(Some("a.example"))));
        let blocks = |text: &str| Some(IpBlocks::from_iter([text.parse().expect("a block")]));
        let any = ConnectionMatch::default;
        let client = ClientMatch { namespace: Some("shop".into()), labels: None };
        let servers = vec![HostPattern::Suffix(".example".into())];
        for (rule, of_other, of_tls) in [
            (rule(false, any()), true, true),
            (rule(true, any()), false, true),
            (rule(false, ConnectionMatch { port: Some(91), ..any() }), false, false),
            (rule(false, ConnectionMatch { port: Some(90), ..any() }), true, true),
            (rule(false, ConnectionMatch { addresses: blocks("10.96.0.0/16"), ..any() }), true, true),
            (rule(false, ConnectionMatch { addresses: blocks("10.97.0.0/16"), ..any() }), false, false),
            (rule(false, ConnectionMatch { client, ..any() }), false, false),
            (rule(true, ConnectionMatch { servers: servers.clone(), ..any() }), false, true),
            (rule(true, ConnectionMatch { servers, port: Some(91), ..any() }), false, false),
        ] {
            assert_eq!((rule.is_for(other), rule.is_for(named)), (of_other, of_tls), "{rule:?}");
        }
        let without = ConnectionMatch { servers: vec![HostPattern::Exact("a.example".into())], ..any() };
        assert!(!rule(true, without).is_for(view(Begun::Tls(None))));
    }
}
