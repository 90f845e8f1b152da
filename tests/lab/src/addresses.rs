//! The lab's address plan. Labs may share it: their namespaces keep them apart.
//!
//! Pods have 10.244.NODE.x and fd00:10:244:NODE::x, Services 10.96.0.0/16 and fd00:10:96::/112, the wire between nodes
//! 192.168.100.0/24 and fd00:192:168::/64. Nodes count from 1.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

/// Every pod's address is in here.
pub(crate) const POD_RANGES: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];
/// Every Service's address is in here.
pub(crate) const SERVICE_RANGES: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];

/// An address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

impl Pair {
    /// A MAC address that follows from the IPv4 address, so that a reused address keeps it and no neighbour table errs.
    pub(crate) fn mac(&self) -> String {
        let [a, b, c, d] = self.v4.octets();
        format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }
}

/// The `number`th pod of a node; pod 1 is the node's own end, `cni0`.
pub(crate) fn pod(node: u8, number: u8) -> Pair {
    Pair {
        v4: Ipv4Addr::new(10, 244, node, number),
        v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, u16::from(node), 0, 0, 0, u16::from(number)),
    }
}

/// The ranges of a node's pods.
pub(crate) fn pod_ranges(node: u8) -> [String; 2] {
    [format!("10.244.{node}.0/24"), format!("fd00:10:244:{node:x}::/64")]
}

/// Which pod of the node has the address, if it is of the node's ranges and not the node's own end.
pub(crate) fn pod_number(node: u8, address: Ipv4Addr) -> Option<u8> {
    let [_, _, _, number] = address.octets();
    (pod(node, number).v4 == address && (2..255).contains(&number)).then_some(number)
}

/// The wire's own end, which captures use to mark their end.
pub(crate) fn wire() -> Pair {
    on_wire(1)
}

/// A node's address on the wire.
pub(crate) fn node(node: u8) -> Pair {
    on_wire(node.saturating_add(10))
}

/// The `number`th machine outside, from 0.
pub(crate) fn outside(number: usize) -> Result<Pair> {
    let last = u8::try_from(number).ok().and_then(|number| number.checked_add(200)).filter(|last| *last < 255);
    Ok(on_wire(last.context("a lab has room for 55 machines outside")?))
}

fn on_wire(number: u8) -> Pair {
    Pair {
        v4: Ipv4Addr::new(192, 168, 100, number),
        v6: Ipv6Addr::new(0xfd00, 0x192, 0x168, 0, 0, 0, 0, u16::from(number)),
    }
}

/// The addresses of the `number`th Service, from 0.
pub(crate) fn service(number: usize) -> Result<Pair> {
    let number = u16::try_from(number + 10).context("a lab has room for 65,000 Services")?;
    let [high, low] = number.to_be_bytes();
    Ok(Pair { v4: Ipv4Addr::new(10, 96, high, low), v6: Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_number_follows_from_its_address() {
        assert_eq!(pod_number(3, pod(3, 77).v4), Some(77));
        assert_eq!(pod_number(2, pod(3, 77).v4), None);
        assert_eq!(pod_number(3, pod(3, 1).v4), None, "the node's own end is no pod's");
    }

    #[test]
    fn addresses_do_not_collide() {
        assert_eq!(service(0).unwrap().v4, Ipv4Addr::new(10, 96, 0, 10));
        assert_eq!(service(300).unwrap().v4, Ipv4Addr::new(10, 96, 1, 54));
        assert_ne!(outside(0).unwrap(), node(1));
        assert!(outside(55).is_err());
    }
}
