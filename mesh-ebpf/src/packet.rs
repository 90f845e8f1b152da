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
pub const UDP: u8 = 17;
pub const IPV6_HEADER: usize = 40;
/// Hop-by-hop, routing and destination options; more in one packet than this is refused.
const MAX_EXTENSION_HEADERS: usize = 4;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// What a packet is, for the mesh.
pub enum Packet {
    Tcp(Segment),
    Udp(Datagram),
    /// Neither TCP nor UDP: not the mesh's business.
    Other,
    /// A piece of a TCP packet, whose ports are not looked for.
    TcpFragment {
        source: SockAddress,
        destination: SockAddress,
    },
    /// Ends before its headers do, or hides its payload behind too many of them.
    Malformed,
}

/// Where a datagram is in its packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Datagram {
    /// Right after an IPv4 header without options.
    V4,
    /// Right after an IPv6 header.
    V6,
    /// In pieces, or after more than that.
    Elsewhere,
}

/// A TCP segment's addresses, sequence number and flags.
#[derive(Clone, Copy)]
pub struct Segment {
    pub source: SockAddress,
    pub destination: SockAddress,
    /// In host order.
    pub sequence: u32,
    /// Octets of its payload.
    pub payload_length: u32,
    flags: u8,
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
        DirectKey { client: self.source, server: self.destination }
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
pub fn load<T: Copy>(ctx: &TcContext, offset: usize) -> Option<T> {
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

/// An IPv4 header without options (RFC 791, section 3.1). One load a header: each is a call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HeaderV4 {
    pub version_and_length: u8,
    pub service: u8,
    pub length_be: u16,
    pub identification_be: u16,
    pub fragment_be: u16,
    pub hops: u8,
    pub protocol: u8,
    pub checksum_be: u16,
    pub source_be: u32,
    pub destination_be: u32,
}

/// An IPv6 header (RFC 8200, section 3).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HeaderV6 {
    pub version_and_flow_be: u32,
    pub length_be: u16,
    pub next: u8,
    pub hops: u8,
    pub source_be: [u32; 4],
    pub destination_be: [u32; 4],
}

/// The first 16 of the 20 octets that a TCP header has at least (RFC 9293, section 3.1).
#[repr(C)]
#[derive(Clone, Copy)]
struct HeaderTcp {
    source_port_be: u16,
    destination_port_be: u16,
    sequence_be: u32,
    acknowledgement_be: u32,
    offset: u8,
    flags: u8,
    window_be: u16,
}

const _: () = assert!(size_of::<HeaderV4>() == 20 && size_of::<HeaderV6>() == IPV6_HEADER);
const _: () = assert!(size_of::<HeaderTcp>() == 16);

#[inline(always)]
fn parse_v4(ctx: &TcContext) -> Option<Packet> {
    const FRAGMENT_BITS: u16 = 0x3fff; // "more fragments" and the offset
    let header: HeaderV4 = load(ctx, 0)?;
    let is_piece = u16::from_be(header.fragment_be) & FRAGMENT_BITS != 0;
    match header.protocol {
        UDP => {
            let is_plain = !is_piece && header.version_and_length & 0x0f == 5;
            return Some(Packet::Udp(if is_plain { Datagram::V4 } else { Datagram::Elsewhere }));
        }
        TCP => {}
        _ => return Some(Packet::Other),
    }
    if is_piece {
        let (source, destination) = (SockAddress::v4(header.source_be, 0), SockAddress::v4(header.destination_be, 0));
        return Some(Packet::TcpFragment { source, destination });
    }
    let length = usize::from(header.version_and_length & 0x0f) * 4;
    if length < size_of::<HeaderV4>() {
        return None;
    }
    let tcp: HeaderTcp = load(ctx, length)?;
    let source = SockAddress::v4(header.source_be, tcp.source_port_be);
    let destination = SockAddress::v4(header.destination_be, tcp.destination_port_be);
    Some(segment(source, destination, &tcp, length, u16::from_be(header.length_be).into()))
}

#[inline(always)]
fn parse_v6(ctx: &TcContext) -> Option<Packet> {
    let header: HeaderV6 = load(ctx, 0)?;
    let mut next = header.next;
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
                if inner == UDP {
                    return Some(Packet::Udp(Datagram::Elsewhere));
                }
                let (source, destination) =
                    (SockAddress::v6(header.source_be, 0), SockAddress::v6(header.destination_be, 0));
                return Some(Packet::TcpFragment { source, destination });
            }
            _ => break,
        }
    }
    match next {
        UDP if offset == IPV6_HEADER => Some(Packet::Udp(Datagram::V6)),
        UDP => Some(Packet::Udp(Datagram::Elsewhere)),
        TCP => {
            let tcp: HeaderTcp = load(ctx, offset)?;
            let source = SockAddress::v6(header.source_be, tcp.source_port_be);
            let destination = SockAddress::v6(header.destination_be, tcp.destination_port_be);
            // Not to be taken for IPv4: no such address belongs on a wire (RFC 4038, section 4.2).
            if source.is_v4() || destination.is_v4() {
                return None;
            }
            let end = IPV6_HEADER + usize::from(u16::from_be(header.length_be));
            Some(segment(source, destination, &tcp, offset, end))
        }
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT => None,
        _ => Some(Packet::Other),
    }
}

/// `offset` is where the TCP header begins and `end` where the packet ends, from the network header. A packet that is too large for
/// its length field has 0 there, and so no payload here.
#[inline(always)]
fn segment(source: SockAddress, destination: SockAddress, tcp: &HeaderTcp, offset: usize, end: usize) -> Packet {
    let payload = offset + usize::from(tcp.offset >> 4) * 4;
    Packet::Tcp(Segment {
        source,
        destination,
        sequence: u32::from_be(tcp.sequence_be),
        payload_length: end.saturating_sub(payload) as u32,
        flags: tcp.flags,
    })
}
