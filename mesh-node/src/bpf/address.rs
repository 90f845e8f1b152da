//! Addresses between the daemon's types and the maps' form.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use mesh_abi::SockAddress;

/// The map form of an address.
pub(super) fn to_map(address: SocketAddr) -> SockAddress {
    SockAddress::v6(words(address.ip()), address.port().to_be())
}

/// The daemon's form of a map's address; IPv4-mapped becomes IPv4.
pub(super) fn from_map(address: SockAddress) -> SocketAddr {
    let mut octets = [0u8; 16];
    for (chunk, word) in octets.chunks_exact_mut(4).zip(address.words_be) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), address.port())
}

/// An address as big-endian words of its IPv6 form.
pub(super) fn words(ip: IpAddr) -> [u32; 4] {
    let octets = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut words = [0u32; 4];
    for (word, chunk) in words.iter_mut().zip(octets.chunks_exact(4)) {
        let mut bytes = [0u8; 4];
        bytes.copy_from_slice(chunk);
        *word = u32::from_ne_bytes(bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_through_a_map() {
        for text in ["10.1.2.3:80", "[fd00::1]:15008", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(from_map(to_map(address)), address);
        }
    }

    #[test]
    fn mapped_and_plain_ipv4_are_one_key() {
        let plain: SocketAddr = "10.1.2.3:80".parse().expect("an address");
        let mapped: SocketAddr = "[::ffff:10.1.2.3]:80".parse().expect("an address");
        assert_eq!(to_map(plain), to_map(mapped));
        assert!(to_map(plain).is_v4());
    }
}
