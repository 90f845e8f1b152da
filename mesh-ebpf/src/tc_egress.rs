//! Packets that leave an enrolled pod's interface: no connection starts here but the daemon's own.
//!
//! The connect hooks have sent the applications' connections elsewhere; this one catches what goes
//! round them (raw sockets, sockets bound to the device, a connect() that raced the enrolment).

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::bpf_sk_fullsock,
    macros::classifier,
    programs::TcContext,
};
use mesh_abi::Counter;

use crate::{
    maps::count,
    packet::{self, Packet},
    sockets,
};

#[classifier]
pub fn tc_egress(ctx: TcContext) -> i32 {
    let refused = match packet::parse(&ctx) {
        Packet::Tcp(segment) if segment.opens() && !from_daemon(&ctx) => Counter::DroppedUnattestedSyn,
        Packet::TcpFragment => Counter::DroppedFragment,
        Packet::Malformed => Counter::DroppedMalformed,
        Packet::Udp => {
            count(Counter::UdpPassed);
            return TC_ACT_UNSPEC;
        }
        Packet::Tcp(_) | Packet::Other => return TC_ACT_UNSPEC,
    };
    count(refused);
    TC_ACT_SHOT
}

/// Whether the daemon's socket sent this packet, by the kernel's record.
#[inline(always)]
fn from_daemon(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid for the whole run of the program; the verifier requires the null checks.
    unsafe {
        let sk = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return false;
        }
        let sk = bpf_sk_fullsock(sk);
        !sk.is_null() && sockets::is_daemons(sk)
    }
}
