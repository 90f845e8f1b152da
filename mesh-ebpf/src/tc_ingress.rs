//! Packets that arrive at an enrolled pod's interface: a new plaintext flow goes to the daemon's
//! plaintext listener, whatever port it is for; HBONE goes to the daemon's listener by itself.
//!
//! Every packet that no connection of this namespace owns counts as a new flow, not only a SYN, so
//! that an ACK that completes a SYN-cookie handshake cannot reach an application's listener.

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_F_CURRENT_NETNS, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    helpers::generated::{bpf_sk_assign, bpf_sk_lookup_tcp, bpf_sk_release, bpf_skc_lookup_tcp},
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use mesh_abi::{Counter, ports, sock_address::LOOPBACK_V4_BE};

use crate::{
    maps::count,
    packet::{self, Addresses, Packet, Segment},
    sockets,
};

const TUPLE_V4: u32 = 12;
const TUPLE_V6: u32 = 36;
/// `TCP_TIME_WAIT` and `TCP_LISTEN` (include/net/tcp_states.h).
const TIME_WAIT: u32 = 6;
const LISTEN: u32 = 10;

#[classifier]
pub fn tc_ingress(ctx: TcContext) -> i32 {
    let outcome = match packet::parse(&ctx) {
        Packet::Tcp(segment) => {
            if segment.destination_port() == ports::HBONE || is_established(&ctx, &segment) {
                return TC_ACT_UNSPEC;
            }
            steer(&ctx)
        }
        Packet::TcpFragment => Counter::DroppedFragment,
        Packet::Malformed => Counter::DroppedMalformed,
        Packet::Udp | Packet::Other => return TC_ACT_UNSPEC,
    };
    count(outcome);
    if matches!(outcome, Counter::InboundSteered) {
        debug!(&ctx, "inbound flow steered");
        return TC_ACT_UNSPEC;
    }
    TC_ACT_SHOT
}

/// Whether a connection of this namespace owns the segment.
#[inline(always)]
fn is_established(ctx: &TcContext, segment: &Segment) -> bool {
    let (mut tuple, size) = tuple(segment);
    // SAFETY: the tuple is whole for its size; a socket that is found is released, its state read before.
    unsafe {
        let sk = bpf_skc_lookup_tcp(ctx.as_ptr(), &raw mut tuple, size, BPF_F_CURRENT_NETNS as u64, 0);
        if sk.is_null() {
            return false;
        }
        let state = (*sk).state;
        bpf_sk_release(sk.cast());
        state != LISTEN && !(state == TIME_WAIT && segment.opens())
    }
}

/// Hands the packet to the daemon's plaintext listener in this namespace.
#[inline(always)]
fn steer(ctx: &TcContext) -> Counter {
    let (mut tuple, size) = v4_tuple(0, LOOPBACK_V4_BE, 0, ports::PLAINTEXT_INBOUND.to_be());
    // SAFETY: as in `is_established`.
    unsafe {
        let sk = bpf_sk_lookup_tcp(ctx.as_ptr(), &raw mut tuple, size, BPF_F_CURRENT_NETNS as u64, 0);
        if sk.is_null() {
            return Counter::DroppedNoListener;
        }
        let outcome = assign(ctx, sk);
        bpf_sk_release(sk.cast());
        outcome
    }
}

/// Only a socket that the kernel saw the daemon create takes the flow.
#[inline(always)]
fn assign(ctx: &TcContext, sk: *mut bpf_sock) -> Counter {
    if !sockets::is_daemons(sk) {
        return Counter::DroppedNoListener;
    }
    // SAFETY: the caller holds a reference to the socket.
    match unsafe { bpf_sk_assign(ctx.as_ptr(), sk.cast(), 0) } {
        0 => Counter::InboundSteered,
        _ => Counter::DroppedSteerFailed,
    }
}

#[inline(always)]
fn tuple(segment: &Segment) -> (bpf_sock_tuple, u32) {
    let (sport, dport) = (segment.source_port_be, segment.destination_port_be);
    match segment.addresses {
        Addresses::V4 { source_be, destination_be } => v4_tuple(source_be, destination_be, sport, dport),
        Addresses::V6 { source_be, destination_be } => {
            let ipv6 =
                bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 { saddr: source_be, daddr: destination_be, sport, dport };
            let tuple = bpf_sock_tuple { __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv6 } };
            (tuple, TUPLE_V6)
        }
    }
}

#[inline(always)]
fn v4_tuple(saddr: u32, daddr: u32, sport: u16, dport: u16) -> (bpf_sock_tuple, u32) {
    let ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 { saddr, daddr, sport, dport };
    // SAFETY: all zeroes is a valid value of these integers; the kernel reads the whole of the v4 part.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    tuple.__bindgen_anon_1.ipv4 = ipv4;
    (tuple, TUPLE_V4)
}
