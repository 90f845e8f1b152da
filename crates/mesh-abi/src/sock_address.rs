//! An address and port, in the form in which map keys and values hold them.

/// IPv6 loopback as big-endian words.
pub const LOOPBACK_V6_BE: [u32; 4] = [0, 0, 0, 1u32.to_be()];
/// Third word of an IPv4-mapped IPv6 address, big-endian.
pub const MAPPED_PREFIX_BE: u32 = 0x0000_ffff_u32.to_be();
/// 127.0.0.1 as a big-endian word.
pub const LOOPBACK_V4_BE: u32 = 0x7f00_0001_u32.to_be();

/// An IP address in IPv6 form and a TCP port, both in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SockAddress {
    /// The address as four big-endian words; IPv4 is `::ffff:a.b.c.d`.
    pub words_be: [u32; 4],
    /// TCP port, big-endian.
    pub port_be: u16,
    /// Always zero.
    pub padding: u16,
}

const _: () = assert!(size_of::<SockAddress>() == 20);

impl SockAddress {
    /// An IPv4 address (big-endian word) and port (big-endian).
    #[inline(always)]
    #[must_use]
    pub const fn v4(address_be: u32, port_be: u16) -> Self {
        Self::v6([0, 0, MAPPED_PREFIX_BE, address_be], port_be)
    }

    /// An IPv6 address (big-endian words) and port (big-endian).
    #[inline(always)]
    #[must_use]
    pub const fn v6(words_be: [u32; 4], port_be: u16) -> Self {
        Self { words_be, port_be, padding: 0 }
    }

    /// Whether this is an IPv4 address in its mapped form.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.words_be[0] == 0 && self.words_be[1] == 0 && self.words_be[2] == MAPPED_PREFIX_BE
    }

    /// Whether this is an address of the machine itself: 127.0.0.0/8, `::1`, or the unspecified
    /// address, to which the kernel connects as to loopback.
    #[inline(always)]
    #[must_use]
    pub const fn is_local(&self) -> bool {
        let [first, second, third, last] = self.words_be;
        if first != 0 || second != 0 {
            return false;
        }
        if third == MAPPED_PREFIX_BE {
            return last == 0 || u32::from_be(last) >> 24 == 127;
        }
        third == 0 && (last == 0 || last == LOOPBACK_V6_BE[3])
    }

    /// Whether both are the same host address, whatever the ports.
    #[inline(always)]
    #[must_use]
    pub const fn same_host(&self, other: &[u32; 4]) -> bool {
        self.words_be[0] == other[0]
            && self.words_be[1] == other[1]
            && self.words_be[2] == other[2]
            && self.words_be[3] == other[3]
    }

    /// The port in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn port(&self) -> u16 {
        u16::from_be(self.port_be)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(octets: [u8; 4]) -> SockAddress {
        SockAddress::v4(u32::from_ne_bytes(octets), 80u16.to_be())
    }

    #[test]
    fn loopback_and_unspecified_are_local_in_both_families() {
        for octets in [[127, 0, 0, 1], [127, 255, 0, 9], [0, 0, 0, 0]] {
            assert!(v4(octets).is_local(), "{octets:?}");
        }
        assert!(SockAddress::v6(LOOPBACK_V6_BE, 1).is_local());
        assert!(SockAddress::v6([0; 4], 1).is_local());
    }

    #[test]
    fn other_addresses_are_not_local() {
        for octets in [[10, 0, 0, 1], [128, 0, 0, 1], [126, 255, 255, 255]] {
            assert!(!v4(octets).is_local(), "{octets:?}");
        }
        assert!(!SockAddress::v6([0xfd00_0000_u32.to_be(), 0, 0, 1u32.to_be()], 1).is_local());
        assert!(!SockAddress::v6([0, 0, 1u32.to_be(), 1u32.to_be()], 1).is_local());
    }

    #[test]
    fn ports_are_kept_in_network_order() {
        assert_eq!(v4([10, 0, 0, 1]).port(), 80);
    }
}
