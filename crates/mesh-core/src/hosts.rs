//! Hosts that pods in the mesh are told addresses of in place of their resolver: the mesh's own, where a ServiceEntry gives none.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::entry::{Entry, Resolution};
use crate::l7::GATEWAY_NAME;
use crate::model::{Protocol, Service, Workload};
use crate::resolve::{of_family, waypoint_replicas};
use crate::snapshot::Snapshot;

/// 244.0.0.0/6, of the range that is reserved and routed nowhere (RFC 1112, section 4): room for 67 million.
const V4: u32 = 0xf400_0000;
const V4_BITS: u32 = 26;
/// 2001:2::/48, of which Istio takes its own as well; it is for benchmarks and routed nowhere (RFC 5180, section 8).
const V6: u128 = 0x2001_0002 << 96;
const V6_BITS: u32 = 80;
/// The port at which DNS is asked.
const DNS: u16 = 53;

/// The addresses that a host has by its name alone, the same for everybody who knows the host; `attempt` gives others, where
/// somebody has these.
#[must_use]
pub fn automatic(host: &str, attempt: u32) -> (Ipv4Addr, Ipv6Addr) {
    let first = digest(host.bytes().chain(attempt.to_be_bytes()));
    let second = digest(first.to_be_bytes().into_iter().chain(host.bytes()));
    let wide = u128::from(first) << 64 | u128::from(second);
    let v4 = V4 | (first & ((1 << V4_BITS) - 1)) as u32;
    (v4.into(), (V6 | (wide & ((1 << V6_BITS) - 1))).into())
}

/// Whether the address is of those that are given so.
#[must_use]
pub fn is_automatic(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => u32::from(address) >> V4_BITS == V4 >> V4_BITS,
        IpAddr::V6(address) => u128::from(address) >> V6_BITS == V6 >> V6_BITS,
    }
}

/// A number that stands for a namespace, the same in every program; never 0 or 1.
#[must_use]
pub fn scope(namespace: &str) -> u64 {
    digest(namespace.bytes()).max(2)
}

/// FNV-1a of 64 bits, stirred once more: its low bits hardly depend on the first octets.
fn digest(octets: impl Iterator<Item = u8>) -> u64 {
    let sum =
        octets.fold(0xcbf2_9ce4_8422_2325, |sum: u64, octet| (sum ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3));
    let sum = (sum ^ (sum >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    sum ^ (sum >> 33)
}

/// The addresses of a host that its clients are told, of each family one at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// What clients are told of a host, whichever of them it is there for; none where they ask their resolver, as its address would
/// lead them nowhere.
///
/// Of a family in which nothing is behind the host now there is no address, as long as there is something in the other.
#[must_use]
pub fn told(snapshot: &Snapshot, service: &Service) -> Option<Told> {
    service.entry.as_deref().filter(|entry| is_led(snapshot, service, entry))?;
    let v4 = service.vips.iter().find_map(|vip| if let IpAddr::V4(vip) = vip { Some(*vip) } else { None });
    let v6 = service.vips.iter().find_map(|vip| if let IpAddr::V6(vip) = vip { Some(*vip) } else { None });
    let is_served = |ipv6| is_served(snapshot, service, ipv6);
    let served = Told { v4: v4.filter(|_| is_served(false)), v6: v6.filter(|_| is_served(true)) };
    let told = if served == Told::default() { Told { v4, v6 } } else { served };
    (told != Told::default()).then_some(told)
}

/// The addresses at which a Service is asked for: those that the mesh gives a host only where clients are told of them.
#[must_use]
pub fn addresses<'a>(snapshot: &Snapshot, service: &'a Service) -> &'a [IpAddr] {
    let is_untold = service.entry.is_some() && service.is_headless() && told(snapshot, service).is_none();
    if is_untold { &[] } else { &service.vips }
}

/// Whether connections to the host's addresses get anywhere: nodes ask no DNS.
fn is_led(snapshot: &Snapshot, service: &Service, entry: &Entry) -> bool {
    let is_known = entry.names.is_empty() || snapshot.l7().waypoint_of(service).is_some();
    is_known && never_told(service, entry).is_none()
}

/// Why nobody is told of a host of a ServiceEntry, whatever else there is: it could be told nobody, or would lead nowhere, as nodes
/// carry TCP alone.
#[must_use]
pub fn never_told(service: &Service, entry: &Entry) -> Option<&'static str> {
    match () {
        // Clients know what they ask for by themselves.
        () if entry.resolution == Resolution::None => {
            Some("with resolution NONE connections go on to the address that was asked for")
        }
        () if service.hostname.starts_with('*') => Some("it stands for many"),
        () if service.ports.iter().any(|port| port.protocol != Protocol::Tcp) => Some("not all of its ports are TCP"),
        () if !entry.may_be_told => Some("its name is one of the cluster's own in another namespace"),
        () => None,
    }
}

fn is_served(snapshot: &Snapshot, service: &Service, ipv6: bool) -> bool {
    match snapshot.l7().waypoint_of(service) {
        Some(waypoint) => !waypoint_replicas(snapshot, None, waypoint, ipv6).is_empty(),
        None => service.ports.iter().any(|port| !of_family(&port.endpoints, ipv6).is_empty()),
    }
}

/// Whether a Service's change may change what pods are told of.
#[must_use]
pub fn concerns(snapshot: &Snapshot, service: &Service) -> bool {
    let is_of_waypoint = || snapshot.l7().waypoints().iter().any(|waypoint| waypoint.hostname == service.hostname);
    service.entry.is_some() || service.port(DNS, Protocol::Udp).is_some() || is_of_waypoint()
}

/// The addresses of the cluster's DNS servers, as its Services say.
#[must_use]
pub fn dns_servers(snapshot: &Snapshot) -> HashSet<IpAddr> {
    let at_dns = snapshot.services().filter_map(|service| service.port(DNS, Protocol::Udp));
    at_dns.flat_map(|port| port.endpoints.iter().map(|endpoint| endpoint.address.ip())).collect()
}

/// Why a pod in the mesh is told of no host: it asks its resolver, and its connections go where that says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untold {
    /// It says so itself.
    AsksItself,
    /// It is a waypoint or a gateway, which has to find what is behind the host.
    IsGateway,
    /// It is behind a Service's DNS port, and asks for others, in the mesh and outside.
    AsksForOthers,
}

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsksItself => "its annotation ambient.istio.io/dns-capture says so",
            Self::IsGateway => "it is a gateway or a waypoint",
            Self::AsksForOthers => "it is a DNS server, by a Service with UDP port 53",
        })
    }
}

/// Why the pod is told of no host; none where it is told. `serves_dns`: it is one of [`dns_servers`].
#[must_use]
pub fn untold(pod: &Workload, serves_dns: bool) -> Option<Untold> {
    match () {
        () if pod.asks_itself => Some(Untold::AsksItself),
        () if pod.labels.get(GATEWAY_NAME).is_some() => Some(Untold::IsGateway),
        () if serves_dns => Some(Untold::AsksForOthers),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_addresses_are_of_their_ranges_and_do_not_change() {
        for host in ["api.example.com", "a.b", &"x.".repeat(126)] {
            for attempt in 0..100 {
                let (v4, v6) = automatic(host, attempt);
                assert!(is_automatic(v4.into()) && is_automatic(v6.into()), "{v4} {v6}");
            }
        }
        // Those of another version of the mesh's programs are the same: each must know what the others have told.
        let (v4, v6) = automatic("api.example.com", 0);
        assert_eq!(v4.to_string(), "244.245.230.114");
        assert_eq!(v6.to_string(), "2001:2:0:e672:e780:560b:44be:9e2a");
    }

    #[test]
    fn hosts_that_differ_in_little_have_other_addresses() {
        let of = |number: u32| automatic(&format!("host-{number}.example.com"), 0);
        let all: std::collections::BTreeSet<_> = (0..1000).map(|number| of(number).0).collect();
        assert!(all.len() >= 999, "{} of 1000", all.len());
        let attempts: std::collections::BTreeSet<_> = (0..100).map(|attempt| automatic("a.b", attempt).1).collect();
        assert_eq!(attempts.len(), 100);
    }

    #[test]
    fn other_addresses_are_not_automatic() {
        for address in ["240.240.0.1", "243.255.255.255", "248.0.0.0", "10.0.0.1", "2001:2:1::1", "2001:1::1", "::1"] {
            assert!(!is_automatic(address.parse().expect("an address")), "{address}");
        }
        for address in ["244.0.0.0", "247.255.255.255", "2001:2::1", "::ffff:245.1.2.3"] {
            assert!(is_automatic(address.parse().expect("an address")), "{address}");
        }
    }
}
