//! The little of a packet that the TC hooks look at.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext, bindings::bpf_hdr_start_off::BPF_HDR_START_NET, helpers::generated::bpf_skb_load_bytes_relative,
    programs::TcContext,
};
use mesh_abi::{DirectKey, SockAddress};

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

/// A TCP segment's addresses, sequence number and flags.
#[derive(Clone, Copy)]
pub struct Segment {
    pub addresses: Addresses,
    pub source_port_be: u16,
    pub destination_port_be: u16,
    /// In host order.
    pub sequence: u32,
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

    /// The segment's addresses, its sender as the client.
    #[inline(always)]
    pub fn key(&self) -> DirectKey {
        let (source, destination) = (self.source_port_be, self.destination_port_be);
        match self.addresses {
            Addresses::V4 { source_be, destination_be } => DirectKey {
                client: SockAddress::v4(source_be, source),
                server: SockAddress::v4(destination_be, destination),
            },
            Addresses::V6 { source_be, destination_be } => DirectKey {
                client: SockAddress::v6(source_be, source),
                server: SockAddress::v6(destination_be, destination),
            },
        }
    }

    /// Destination port in host order.
    #[inline(always)]
    pub fn destination_port(&self) -> u16 {
        u16::from_be(self.destination_port_be)
    }
}

/// Reads the headers from the network header on, whatever the link layer is.
#[inline(always)]
pub fn parse(ctx: &TcContext) -> Packet {
    // SAFETY: the context is valid for the whole run of the program.
    let protocol_be = unsafe { (*ctx.skb.skb).protocol } as u16;
    match u16::from_be(protocol_be) {
        ETHERTYPE_IPV4 => parse_v4(ctx).unwrap_or(Packet::Malformed),
        ETHERTYPE_IPV6 => parse_v6(ctx).unwrap_or(Packet::Malformed),
        _ => Packet::Other,
    }
}

/// A value in network byte order at `offset` from the network header.
#[inline(always)]
fn load<T: Copy>(ctx: &TcContext, offset: usize) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes size_of::<T>() bytes or fails; every T here is made of integers.
    unsafe {
        let result = bpf_skb_load_bytes_relative(
            ctx.as_ptr(),
            offset as u32,
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            BPF_HDR_START_NET,
        );
        (result == 0).then(|| value.assume_init())
    }
}

#[inline(always)]
fn parse_v4(ctx: &TcContext) -> Option<Packet> {
    const FRAGMENT_BITS: u16 = 0x3fff; // "more fragments" and the offset
    let protocol: u8 = load(ctx, 9)?;
    match protocol {
        UDP => return Some(Packet::Udp),
        TCP => {}
        _ => return Some(Packet::Other),
    }
    let fragment = u16::from_be(load(ctx, 6)?);
    if fragment & FRAGMENT_BITS != 0 {
        return Some(Packet::TcpFragment);
    }
    let version_and_length: u8 = load(ctx, 0)?;
    let header = usize::from(version_and_length & 0x0f) * 4;
    if header < 20 {
        return None;
    }
    let addresses = Addresses::V4 { source_be: load(ctx, 12)?, destination_be: load(ctx, 16)? };
    parse_tcp(ctx, header, addresses)
}

#[inline(always)]
fn parse_v6(ctx: &TcContext) -> Option<Packet> {
    let mut next: u8 = load(ctx, 6)?;
    let mut offset = IPV6_HEADER;
    for _ in 0..MAX_EXTENSION_HEADERS {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                next = load(ctx, offset)?;
                let length: u8 = load(ctx, offset + 1)?;
                offset += (usize::from(length) + 1) * 8;
            }
            FRAGMENT => {
                let inner: u8 = load(ctx, offset)?;
                return Some(if inner == UDP { Packet::Udp } else { Packet::TcpFragment });
            }
            _ => break,
        }
    }
    match next {
        UDP => Some(Packet::Udp),
        TCP => {
            let addresses = Addresses::V6 { source_be: load(ctx, 8)?, destination_be: load(ctx, 24)? };
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
        source_port_be: load(ctx, start)?,
        destination_port_be: load(ctx, start + 2)?,
        sequence: u32::from_be(load(ctx, start + 4)?),
        flags: load(ctx, start + 13)?,
    }))
}
