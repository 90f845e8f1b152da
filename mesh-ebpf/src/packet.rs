//! The little of a packet that the TC hooks look at.

use aya_ebpf::programs::TcContext;

const ETHERNET_HEADER: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_HEADER: usize = 40;
/// Hop-by-hop, routing and destination options; more in one packet than this is refused.
const MAX_EXTENSION_HEADERS: usize = 4;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// What a packet is, for the mesh.
pub enum Packet {
    Tcp(Segment),
    Udp,
    /// Neither TCP nor UDP: not the mesh's business.
    Other,
    /// A piece of a TCP packet.
    TcpFragment,
    /// Ends before its headers do, or hides its payload behind too many of them.
    Malformed,
}

/// A TCP segment's addresses and flags.
#[derive(Clone, Copy)]
pub struct Segment {
    pub addresses: Addresses,
    pub source_port_be: u16,
    pub destination_port_be: u16,
    flags: u8,
}

#[derive(Clone, Copy)]
pub enum Addresses {
    V4 { source_be: u32, destination_be: u32 },
    V6 { source_be: [u32; 4], destination_be: [u32; 4] },
}

impl Segment {
    /// Asks for a new connection: SYN without ACK.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        const SYN: u8 = 0x02;
        const ACK: u8 = 0x10;
        self.flags & (SYN | ACK) == SYN
    }

    /// Destination port in host order.
    #[inline(always)]
    pub fn destination_port(&self) -> u16 {
        u16::from_be(self.destination_port_be)
    }
}

/// Reads the headers of an Ethernet frame.
#[inline(always)]
pub fn parse(ctx: &TcContext) -> Packet {
    match ctx.load::<u16>(ETHERNET_HEADER - 2).map(u16::from_be) {
        Ok(ETHERTYPE_IPV4) => parse_v4(ctx).unwrap_or(Packet::Malformed),
        Ok(ETHERTYPE_IPV6) => parse_v6(ctx).unwrap_or(Packet::Malformed),
        Ok(_) => Packet::Other,
        Err(_) => Packet::Malformed,
    }
}

#[inline(always)]
fn parse_v4(ctx: &TcContext) -> Option<Packet> {
    const FRAGMENT_BITS: u16 = 0x3fff; // "more fragments" and the offset
    let start = ETHERNET_HEADER;
    let protocol: u8 = ctx.load(start + 9).ok()?;
    match protocol {
        UDP => return Some(Packet::Udp),
        TCP => {}
        _ => return Some(Packet::Other),
    }
    let fragment = u16::from_be(ctx.load(start + 6).ok()?);
    if fragment & FRAGMENT_BITS != 0 {
        return Some(Packet::TcpFragment);
    }
    let version_and_length: u8 = ctx.load(start).ok()?;
    let header = usize::from(version_and_length & 0x0f) * 4;
    if header < 20 {
        return None;
    }
    let addresses = Addresses::V4 {
        source_be: ctx.load(start + 12).ok()?,
        destination_be: ctx.load(start + 16).ok()?,
    };
    parse_tcp(ctx, start + header, addresses)
}

#[inline(always)]
fn parse_v6(ctx: &TcContext) -> Option<Packet> {
    let start = ETHERNET_HEADER;
    let mut next: u8 = ctx.load(start + 6).ok()?;
    let mut offset = start + IPV6_HEADER;
    for _ in 0..MAX_EXTENSION_HEADERS {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                next = ctx.load(offset).ok()?;
                let length: u8 = ctx.load(offset + 1).ok()?;
                offset += (usize::from(length) + 1) * 8;
            }
            FRAGMENT => {
                let inner: u8 = ctx.load(offset).ok()?;
                return Some(if inner == UDP { Packet::Udp } else { Packet::TcpFragment });
            }
            _ => break,
        }
    }
    match next {
        UDP => Some(Packet::Udp),
        TCP => {
            let addresses = Addresses::V6 {
                source_be: ctx.load(start + 8).ok()?,
                destination_be: ctx.load(start + 24).ok()?,
            };
            parse_tcp(ctx, offset, addresses)
        }
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT => None,
        _ => Some(Packet::Other),
    }
}

#[inline(always)]
fn parse_tcp(ctx: &TcContext, start: usize, addresses: Addresses) -> Option<Packet> {
    Some(Packet::Tcp(Segment {
        addresses,
        source_port_be: ctx.load(start).ok()?,
        destination_port_be: ctx.load(start + 2).ok()?,
        flags: ctx.load(start + 13).ok()?,
    }))
}
