//! Blocks of IP addresses in CIDR notation (RFC 4632; RFC 4291, section 2.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A text is no block of addresses. Nobody may retry: the text itself has to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no IP address and no block such as 10.0.0.0/8 or fd00::/8")]
pub struct IpBlockError(String);

/// One block; a single address is a block of one. IPv4-mapped IPv6 addresses are the IPv4 addresses that they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpBlock {
    /// The first and the last address.
    V4(Ipv4Addr, Ipv4Addr),
    /// The first and the last address.
    V6(Ipv6Addr, Ipv6Addr),
}

impl FromStr for IpBlock {
    type Err = IpBlockError;

    fn from_str(text: &str) -> Result<Self, IpBlockError> {
        let error = || IpBlockError(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address = IpAddr::from_str(address).map_err(|_| error())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => bits,
            // No sign, no leading zero.
            Some(digits) => {
                digits.parse::<u32>().ok().filter(|n| *n <= bits && n.to_string() == digits).ok_or_else(error)?
            }
        };
        let (address, length) = match address.to_canonical() {
            IpAddr::V4(v4) if address.is_ipv6() => (IpAddr::V4(v4), length.checked_sub(96).ok_or_else(error)?),
            canonical => (canonical, length),
        };
        Ok(match address {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(length).unwrap_or(0);
                Self::V4((v4.to_bits() & !host).into(), (v4.to_bits() | host).into())
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(length).unwrap_or(0);
                Self::V6((v6.to_bits() & !host).into(), (v6.to_bits() | host).into())
            }
        })
    }
}

/// Any number of blocks; looking an address up is a binary search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpBlocks {
    v4: Box<[(Ipv4Addr, Ipv4Addr)]>,
    v6: Box<[(Ipv6Addr, Ipv6Addr)]>,
}

impl IpBlocks {
    /// Whether the address is in one of the blocks.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => within(&self.v4, v4),
            IpAddr::V6(v6) => within(&self.v6, v6),
        }
    }

    /// The blocks, each by its first address and the bits of its prefix. Of two blocks that have an address in common one is
    /// part of the other, and is left out.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let v4 =
            self.v4.iter().map(|(first, last)| ((*first).into(), (first.to_bits() ^ last.to_bits()).leading_zeros()));
        let v6 =
            self.v6.iter().map(|(first, last)| ((*first).into(), (first.to_bits() ^ last.to_bits()).leading_zeros()));
        v4.chain(v6)
    }
}

/// Of the ranges, which are in order and apart, only the last that begins at or before the address can hold it.
fn within<A: Ord + Copy>(ranges: &[(A, A)], address: A) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|(_, last)| address <= *last)
}

impl FromIterator<IpBlock> for IpBlocks {
    fn from_iter<I: IntoIterator<Item = IpBlock>>(blocks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for block in blocks {
            match block {
                IpBlock::V4(first, last) => v4.push((first, last)),
                IpBlock::V6(first, last) => v6.push((first, last)),
            }
        }
        Self { v4: apart(v4), v6: apart(v6) }
    }
}

/// Orders ranges and joins those that overlap.
fn apart<A: Ord + Copy>(mut ranges: Vec<(A, A)>) -> Box<[(A, A)]> {
    ranges.sort_unstable();
    ranges.dedup_by(|later, earlier| {
        let overlap = later.0 <= earlier.1;
        if overlap {
            earlier.1 = earlier.1.max(later.1);
        }
        overlap
    });
    ranges.into()
}
