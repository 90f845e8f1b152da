//! Packets that arrive at an enrolled pod's interface: a flow for which the kernel answers goes to the application; any
//! other new flow goes to the daemon's plaintext listener, whatever port it is for; HBONE goes to the daemon's listener
//! by itself.
//!
//! Every packet that no connection of this namespace owns counts as a new flow, not only a SYN, so
//! that an ACK that completes a SYN-cookie handshake cannot reach an application's listener.

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_F_CURRENT_NETNS, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    helpers::generated::{bpf_sk_assign, bpf_sk_release, bpf_skc_lookup_tcp},
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use mesh_abi::{Counter, SockAddress, drop::ARRIVING, ports};

use crate::{
    attestation::{self, Finding},
    drops::{self, Dropped},
    listener::{self, TUPLE_V4},
    maps::count,
    packet::{self, Packet, Segment},
};

const TUPLE_V6: u32 = 36;
/// `TCP_TIME_WAIT` and `TCP_LISTEN` (include/net/tcp_states.h).
const TIME_WAIT: u32 = 6;
const LISTEN: u32 = 10;

#[classifier]
pub fn tc_ingress(ctx: TcContext) -> i32 {
    let nowhere = SockAddress::default();
    let (outcome, source, destination) = match packet::parse(&ctx) {
        Packet::Tcp(segment) => {
            if segment.destination.port() == ports::HBONE || is_established(&ctx, &segment) {
                return TC_ACT_UNSPEC;
            }
            (receive(&ctx, &segment), segment.source, segment.destination)
        }
        Packet::TcpFragment { source, destination } => (Counter::DroppedFragment, source, destination),
        Packet::Malformed => (Counter::DroppedMalformed, nowhere, nowhere),
        Packet::Udp(_) | Packet::Other => return TC_ACT_UNSPEC,
    };
    match outcome {
        Counter::DirectAdmitted | Counter::ProbeAdmitted => {
            count(outcome);
            TC_ACT_UNSPEC
        }
        Counter::InboundSteered => {
            count(outcome);
            debug!(&ctx, "inbound flow steered");
            TC_ACT_UNSPEC
        }
        _ => {
            let netns_cookie = || listener::netns_cookie(ctx.as_ptr());
            drops::note(outcome, || Dropped { netns_cookie: netns_cookie(), direction: ARRIVING, source, destination });
            TC_ACT_SHOT
        }
    }
}

/// A segment that no connection owns: to the application's own listener where the kernel answers for it, else to the
/// daemon's plaintext listener. Without a daemon nothing new comes in.
#[inline(always)]
fn receive(ctx: &TcContext, segment: &Segment) -> Counter {
    let finding = attestation::find(segment);
    if matches!(finding, Finding::Forged) {
        return Counter::DroppedForgedFlow;
    }
    let outcome = listener::with(ctx.as_ptr(), ports::PLAINTEXT_INBOUND, |sk, record| match finding {
        // The attested server and this pod must be one: another could have taken its address.
        Finding::Attested { server_netns_cookie, is_probe } if server_netns_cookie == record.netns_cookie => {
            if is_probe { Counter::ProbeAdmitted } else { Counter::DirectAdmitted }
        }
        Finding::Attested { .. } => Counter::DroppedForgedFlow,
        // SAFETY: `with` holds a reference to the socket.
        _ => match unsafe { bpf_sk_assign(ctx.as_ptr(), sk.cast(), 0) } {
            0 => Counter::InboundSteered,
            _ => Counter::DroppedSteerFailed,
        },
    });
    outcome.unwrap_or(Counter::DroppedNoListener)
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

#[inline(always)]
fn tuple(segment: &Segment) -> (bpf_sock_tuple, u32) {
    let (source, destination) = (&segment.source, &segment.destination);
    let (sport, dport) = (source.port_be, destination.port_be);
    if source.is_v4() {
        return (listener::v4_tuple(source.words_be[3], destination.words_be[3], sport, dport), TUPLE_V4);
    }
    let (saddr, daddr) = (source.words_be, destination.words_be);
    let ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 { saddr, daddr, sport, dport };
    (bpf_sock_tuple { __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv6 } }, TUPLE_V6)
}
