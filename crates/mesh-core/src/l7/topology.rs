//! What stands between a gateway and its clients, and how far it is believed (Istio's `gatewayTopology`).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// What stands before one gateway. By default nothing does, and nobody is believed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Topology {
    /// Every connection begins with a header of the PROXY protocol, which says whose it is (`proxyProtocol`).
    pub proxy_protocol: bool,
    /// How many proxies that are believed stand one behind the other (`numTrustedProxies`). Each appends to `x-forwarded-for`
    /// who connected to it, so that the client is so many addresses from the end.
    pub trusted_proxies: u32,
    /// What becomes of `x-forwarded-client-cert` (`forwardClientCertDetails`).
    pub certificates: CertificateForwarding,
}

/// What becomes of the field that says which certificate a client has shown, where it has shown one to this gateway. Without one
/// the field is removed, but for [`AlwaysForwardOnly`](Self::AlwaysForwardOnly).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum CertificateForwarding {
    /// It is removed (`SANITIZE`).
    Sanitize,
    /// It goes on as it came (`FORWARD_ONLY`).
    ForwardOnly,
    /// The client's certificate is appended to it (`APPEND_FORWARD`).
    AppendForward,
    /// It is the client's certificate, and nothing that came (`SANITIZE_SET`).
    #[default]
    SanitizeSet,
    /// It goes on as it came, whether or not there is a certificate (`ALWAYS_FORWARD_ONLY`).
    AlwaysForwardOnly,
}

/// What is said of a topology in one place; where nothing is said, what is said above counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TopologyPart {
    /// See [`Topology::proxy_protocol`].
    pub proxy_protocol: Option<bool>,
    /// See [`Topology::trusted_proxies`].
    pub trusted_proxies: Option<u32>,
    /// See [`Topology::certificates`].
    pub certificates: Option<CertificateForwarding>,
}

/// What stands before gateways, by who says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topologies {
    /// The mesh configuration, of all.
    pub everywhere: TopologyPart,
    /// Gateways of the Gateway API, by `namespace/name`.
    pub gateways: HashMap<String, TopologyPart>,
    /// Pods, likewise.
    pub pods: HashMap<String, TopologyPart>,
}

impl TopologyPart {
    /// What is said here, and what is not from `above`.
    #[must_use]
    pub fn or(self, above: Self) -> Self {
        Self {
            proxy_protocol: self.proxy_protocol.or(above.proxy_protocol),
            trusted_proxies: self.trusted_proxies.or(above.trusted_proxies),
            certificates: self.certificates.or(above.certificates),
        }
    }

    fn whole(self) -> Topology {
        Topology {
            proxy_protocol: self.proxy_protocol.unwrap_or_default(),
            trusted_proxies: self.trusted_proxies.unwrap_or_default(),
            certificates: self.certificates.unwrap_or_default(),
        }
    }
}

impl Topologies {
    /// What stands before a pod of a gateway, each named by namespace and name: as the pod says, then the Gateway, then the mesh.
    #[must_use]
    pub fn of(&self, gateway: (&str, &str), pod: Option<(&str, &str)>) -> Topology {
        let said = |by: &HashMap<String, TopologyPart>, (namespace, name): (&str, &str)| {
            by.get(&format!("{namespace}/{name}")).copied().unwrap_or_default()
        };
        let pod = pod.map(|pod| said(&self.pods, pod)).unwrap_or_default();
        pod.or(said(&self.gateways, gateway)).or(self.everywhere).whole()
    }
}

/// The client of a request that came by so many proxies that are believed, by the lines of its `x-forwarded-for` in their order:
/// what the outermost of them appended. None where they are fewer, or where that is no address: then nothing is believed.
#[must_use]
pub fn forwarded_client<'a>(lines: impl DoubleEndedIterator<Item = &'a str>, trusted_proxies: u32) -> Option<IpAddr> {
    let place = usize::try_from(trusted_proxies.checked_sub(1)?).ok()?;
    let written = lines.rev().flat_map(|line| line.rsplit(',')).map(str::trim).nth(place)?;
    address(written).map(|address| address.to_canonical())
}

/// An address as proxies write it: some with a port, some in brackets.
fn address(written: &str) -> Option<IpAddr> {
    let bare = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(written);
    bare.parse().ok().or_else(|| written.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_as_many_addresses_from_the_end_as_proxies_are_trusted() {
        for (lines, trusted, expected) in [
            (&["203.0.113.1"][..], 0, None),
            (&["203.0.113.1"], 1, Some("203.0.113.1")),
            (&["203.0.113.1"], 2, None),
            (&["10.9.9.9, 203.0.113.1,198.51.100.1"], 1, Some("198.51.100.1")),
            (&["10.9.9.9, 203.0.113.1,198.51.100.1"], 2, Some("203.0.113.1")),
            (&["10.9.9.9", "203.0.113.1,198.51.100.1"], 2, Some("203.0.113.1")),
            (&["10.9.9.9", "203.0.113.1,198.51.100.1"], 3, Some("10.9.9.9")),
            (&["::ffff:203.0.113.1"], 1, Some("203.0.113.1")),
            (&["[2001:db8::1]"], 1, Some("2001:db8::1")),
            (&["[2001:db8::1]:443"], 1, Some("2001:db8::1")),
            (&["203.0.113.1:443"], 1, Some("203.0.113.1")),
            (&["203.0.113.1, unknown"], 1, None),
            (&["203.0.113.1,"], 1, None),
            (&[""], 1, None),
            (&[], 1, None),
        ] {
            let found = forwarded_client(lines.iter().copied(), trusted);
            assert_eq!(found, expected.map(|text| text.parse().unwrap()), "{lines:?} {trusted}");
        }
    }

    #[test]
    fn what_is_nearest_to_the_gateway_counts() {
        let part = |proxies| TopologyPart { trusted_proxies: Some(proxies), ..TopologyPart::default() };
        let everywhere = TopologyPart { proxy_protocol: Some(true), ..part(1) };
        let named = |name: &str, part| HashMap::from([(name.to_owned(), part)]);
        let all = Topologies { everywhere, gateways: named("shop/edge", part(2)), pods: named("shop/pod", part(3)) };
        let found = |gateway, pod| all.of(("shop", gateway), pod);
        let topology = |trusted_proxies| Topology { proxy_protocol: true, trusted_proxies, ..Topology::default() };
        assert_eq!(found("edge", Some(("shop", "pod"))), topology(3));
        assert_eq!(found("edge", Some(("shop", "other"))), topology(2));
        assert_eq!(found("other", None), topology(1));
    }
}
