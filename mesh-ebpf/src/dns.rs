//! Answers what pods ask of DNS about hosts of the mesh, in place of the resolver that they ask: the question's own packet turns
//! round at the pod's interface and comes in again as the answer. Whatever else is asked goes to the resolver untouched.
//!
//! So nobody stands between pods and their resolver, and hosts of the mesh keep their addresses while there is no daemon.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT},
    helpers::generated::{bpf_csum_diff, bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes},
    programs::TcContext,
};
use mesh_abi::{
    AskerRecord, Counter, Exchange, HostRecord, SockAddress,
    dns::{EVERYBODY, HEADER, NAME_ROOM, PORT, SHOWN},
};

use crate::{
    listener,
    maps::{ASKERS, EXCHANGE, HOSTS, LOCAL, count},
    packet::{self, Datagram, HeaderV4, HeaderV6, IPV6_HEADER, UDP},
};

/// Octets of an Ethernet header; the first twelve are its two addresses.
const ETHERNET: u32 = 14;
const HEADER_V4: u32 = size_of::<HeaderV4>() as u32;
const HEADER_V6: u32 = IPV6_HEADER as u32;
const HEADER_UDP: u32 = size_of::<HeaderUdp>() as u32;
/// Octets of an answer that are sent at most: a power of two.
const SENT: u32 = SHOWN as u32;
/// How many hops an answer could take; it takes none.
const HOPS: u8 = 64;
const DO_NOT_FRAGMENT: u16 = 0x4000;

/// A UDP header (RFC 768).
#[repr(C)]
#[derive(Clone, Copy)]
struct HeaderUdp {
    source_port_be: u16,
    destination_port_be: u16,
    length_be: u16,
    checksum_be: u16,
}

/// Answers a datagram where it is a question for a host of the mesh: what becomes of its packet. None: it goes on as it is.
#[inline(always)]
pub fn answer(ctx: &TcContext, datagram: Datagram) -> Option<i32> {
    let header_ip = match datagram {
        Datagram::V4 => HEADER_V4,
        Datagram::V6 => HEADER_V6,
        Datagram::Elsewhere => return None,
    };
    let udp: HeaderUdp = packet::load(ctx, header_ip as usize)?;
    if udp.destination_port_be != PORT.to_be() {
        return None;
    }
    // Packets have an Ethernet header, or begin with IP's; nothing follows the datagram.
    let begin = ctx.len().checked_sub(header_ip + u32::from(u16::from_be(udp.length_be)))?;
    if begin != ETHERNET && begin != 0 {
        return None;
    }
    let asker = asker(ctx, datagram)?;
    let exchange: *mut Exchange = EXCHANGE.get_ptr_mut(0)?;
    // SAFETY: the slot belongs to this CPU, whose packets leave one after another.
    let exchange = unsafe { &mut *exchange };
    let message = begin + header_ip + HEADER_UDP;
    take_in(ctx, exchange, message, u16::from_be(udp.length_be))?;
    let question = exchange.question(|name, length| {
        // From 1 to the room that there is, in a way that the verifier follows.
        let length = (length.wrapping_sub(1) & (NAME_ROOM as u32 - 1)) + 1;
        // SAFETY: there is room for so many octets.
        unsafe { load(ctx, message + HEADER, name.as_mut_ptr(), length) }
    })?;
    let host = find(exchange, asker.scope)?;
    exchange.answer(question, (host, &asker), |to, from, length| {
        // The same, to the least power of two that is enough.
        let length = (length.wrapping_sub(1) & 63) + 1;
        // SAFETY: the message has room for as many octets after each that is shown.
        unsafe { load(ctx, message + from, to.as_mut_ptr(), length) }
    })?;
    // SAFETY: plain helper calls.
    unsafe {
        if bpf_skb_change_tail(ctx.skb.skb, message + exchange.length, 0) != 0 {
            return None;
        }
        let is_written = match datagram {
            Datagram::V4 => write_v4(ctx, exchange, &udp, begin),
            _ => write_v6(ctx, exchange, &udp, begin),
        };
        // It is no question any more, and no answer.
        if is_written.is_none() {
            return Some(TC_ACT_SHOT);
        }
        count(Counter::HostAnswered);
        Some(bpf_redirect((*ctx.skb.skb).ifindex, BPF_F_INGRESS.into()) as i32)
    }
}

/// Reads the message's beginning.
#[inline(always)]
fn take_in(ctx: &TcContext, exchange: &mut Exchange, place: u32, length: u16) -> Option<()> {
    let length = u32::from(length).checked_sub(HEADER_UDP).filter(|length| *length > 0)?;
    exchange.length = length.min(SHOWN as u32);
    let length = bounded(exchange);
    // SAFETY: the message has room for [`SHOWN`] octets, and the length is from 1 to that.
    unsafe { load(ctx, place, exchange.message.as_mut_ptr(), length) }
}

/// Reads octets of the packet.
///
/// # Safety
/// There has to be room for them.
#[inline(always)]
unsafe fn load(ctx: &TcContext, place: u32, to: *mut u8, length: u32) -> Option<()> {
    // SAFETY: the caller's.
    let result = unsafe { bpf_skb_load_bytes(ctx.as_ptr(), place, to.cast(), length) };
    (result == 0).then_some(())
}

/// The pod that asks, if it is told of hosts: by its own address, which is known without a daemon as well; else by the daemon's
/// listener in its namespace. Who can write another pod's address may learn what that is told, and nothing else: no connection goes
/// by what is said here.
#[inline(always)]
fn asker(ctx: &TcContext, datagram: Datagram) -> Option<AskerRecord> {
    let source = match datagram {
        Datagram::V6 => packet::load::<HeaderV6>(ctx, 0)?.source_be,
        _ => SockAddress::v4(packet::load::<HeaderV4>(ctx, 0)?.source_be, 0).words_be,
    };
    // SAFETY: map values are only read, and a racing update changes whole records.
    let known = unsafe { LOCAL.get(source) }.copied();
    let netns_cookie = known.unwrap_or_else(|| listener::netns_cookie(ctx.as_ptr()));
    // SAFETY: as above.
    unsafe { ASKERS.get(netns_cookie) }.copied()
}

/// The host that is asked for: everybody's, or one for the pods of that scope.
#[inline(always)]
fn find<'a>(exchange: &mut Exchange, scope: u64) -> Option<&'a HostRecord> {
    exchange.key.scope = EVERYBODY;
    // SAFETY: map values are only read, and a racing update changes whole records.
    if let Some(host) = unsafe { HOSTS.get(&exchange.key) } {
        return Some(host);
    }
    exchange.key.scope = scope;
    // SAFETY: as above.
    unsafe { HOSTS.get(&exchange.key) }
}

/// Writes the answer, from whom the question was for and to whom it came from.
#[inline(always)]
fn write_v4(ctx: &TcContext, exchange: &mut Exchange, udp: &HeaderUdp, begin: u32) -> Option<()> {
    let asked: HeaderV4 = packet::load(ctx, 0)?;
    let mut header = HeaderV4 {
        version_and_length: 0x45,
        service: 0,
        length_be: ((HEADER_V4 + HEADER_UDP + exchange.length) as u16).to_be(),
        identification_be: 0,
        fragment_be: DO_NOT_FRAGMENT.to_be(),
        hops: HOPS,
        protocol: UDP,
        checksum_be: 0,
        source_be: asked.destination_be,
        destination_be: asked.source_be,
    };
    let addresses = halves(header.source_be) + halves(header.destination_be);
    let others = [0x4500u16.to_be(), header.length_be, header.fragment_be, u16::from_be_bytes([HOPS, UDP]).to_be()];
    header.checksum_be = complement(addresses + others.into_iter().map(u32::from).sum::<u32>());
    write_message(ctx, exchange, udp, (begin + HEADER_V4, addresses))?;
    store(ctx, begin, &header)?;
    turn_round(ctx, begin)
}

/// As [`write_v4`].
#[inline(always)]
fn write_v6(ctx: &TcContext, exchange: &mut Exchange, udp: &HeaderUdp, begin: u32) -> Option<()> {
    let asked: HeaderV6 = packet::load(ctx, 0)?;
    let header = HeaderV6 {
        version_and_flow_be: 0x6000_0000u32.to_be(),
        length_be: ((HEADER_UDP + exchange.length) as u16).to_be(),
        next: UDP,
        hops: HOPS,
        source_be: asked.destination_be,
        destination_be: asked.source_be,
    };
    let [a, b, c, d] = header.source_be;
    let [e, f, g, h] = header.destination_be;
    let addresses = halves(a) + halves(b) + halves(c) + halves(d) + halves(e) + halves(f) + halves(g) + halves(h);
    write_message(ctx, exchange, udp, (begin + HEADER_V6, addresses))?;
    store(ctx, begin, &header)?;
    turn_round(ctx, begin)
}

/// Writes the UDP header and the message. `addresses` is the sum of the packet's two.
#[inline(always)]
fn write_message(
    ctx: &TcContext,
    exchange: &mut Exchange,
    udp: &HeaderUdp,
    (place, addresses): (u32, u32),
) -> Option<()> {
    let length_be = ((HEADER_UDP + exchange.length) as u16).to_be();
    let mut header = HeaderUdp {
        source_port_be: udp.destination_port_be,
        destination_port_be: udp.source_port_be,
        length_be,
        checksum_be: 0,
    };
    // The pseudo header (RFC 768; RFC 8200, section 8.1), the header and the message, in words.
    let pseudo = addresses + u32::from(u16::from(UDP).to_be()) + u32::from(length_be);
    let ports = u32::from(header.source_port_be) + u32::from(header.destination_port_be);
    let seed = pseudo + ports + u32::from(length_be);
    let sent = bounded(exchange);
    let message = exchange.message.as_mut_ptr().cast::<u32>();
    // SAFETY: the message has room for so many octets, and for the words that they are in; zeroes follow what is sent.
    unsafe {
        let sum = bpf_csum_diff(core::ptr::null_mut(), 0, message, (sent + 3) & !3, seed);
        if sum < 0 {
            return None;
        }
        header.checksum_be = match complement(halves(sum as u32)) {
            // Which would mean that there is none.
            0 => u16::MAX,
            checksum => checksum,
        };
        store(ctx, place, &header)?;
        let result = bpf_skb_store_bytes(ctx.skb.skb, place + HEADER_UDP, message.cast(), sent, 0);
        (result == 0).then_some(())
    }
}

/// Has the interface take the packet for its own.
#[inline(always)]
fn turn_round(ctx: &TcContext, begin: u32) -> Option<()> {
    if begin != ETHERNET {
        return Some(());
    }
    let mut addresses = [[0u8; 6]; 2];
    // SAFETY: the packet has an Ethernet header, and the helper writes twelve octets or fails.
    let result = unsafe { bpf_skb_load_bytes(ctx.as_ptr(), 0, addresses.as_mut_ptr().cast(), 12) };
    if result != 0 {
        return None;
    }
    let [to, from] = addresses;
    store(ctx, 0, &[from, to])
}

#[inline(always)]
fn store<T: Copy>(ctx: &TcContext, place: u32, value: &T) -> Option<()> {
    // SAFETY: the helper reads size_of::<T>() octets; every T here is made of integers, without padding.
    let result =
        unsafe { bpf_skb_store_bytes(ctx.skb.skb, place, core::ptr::from_ref(value).cast(), size_of::<T>() as u32, 0) };
    (result == 0).then_some(())
}

/// The message's length, which is from 1 to [`SENT`], in a way that the verifier follows: read anew, so that the compiler takes
/// no bound for known.
#[inline(always)]
fn bounded(exchange: &Exchange) -> u32 {
    // SAFETY: the slot belongs to this CPU, whose packets leave one after another.
    let length = unsafe { (&raw const exchange.length).read_volatile() };
    (length.wrapping_sub(1) & (SENT - 1)) + 1
}

/// The sum of a word's two halves.
#[inline(always)]
const fn halves(word: u32) -> u32 {
    (word >> 16) + (word & 0xffff)
}

/// The ones' complement of a sum of 16-bit words (RFC 1071).
#[inline(always)]
const fn complement(sum: u32) -> u16 {
    !(halves(halves(sum)) as u16)
}
