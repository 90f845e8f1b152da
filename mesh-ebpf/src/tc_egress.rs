//! Packets that leave an enrolled pod's interface: no connection starts here but the daemon's own, and those to pods
//! of this node for which the kernel answers. A question to DNS for a host of the mesh is answered here, and goes nowhere.
//!
//! The connect hooks have sent the applications' connections elsewhere; this one catches what goes
//! round them (raw sockets, sockets bound to the device). A connect() from before the enrolment goes on
//! where the daemon keeps its socket: nobody may have answered its SYN yet.

use aya_ebpf::{
    EbpfContext,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::bpf_get_socket_cookie,
    macros::classifier,
    programs::TcContext,
};
use mesh_abi::{Counter, SockAddress, SocketKind, drop::LEAVING};

use crate::{
    attestation, dns,
    drops::{self, Dropped},
    listener,
    maps::{EXISTING, count},
    packet::{self, Packet, Segment},
    signals, sockets,
};

#[classifier]
pub fn tc_egress(ctx: TcContext) -> i32 {
    let nowhere = SockAddress::default();
    let (refused, source, destination) = match packet::parse(&ctx) {
        Packet::Tcp(segment) if segment.opens() => match judge(&ctx, &segment) {
            Ok(()) => return TC_ACT_UNSPEC,
            Err(refused) => (refused, segment.source, segment.destination),
        },
        Packet::TcpFragment { source, destination } => (Counter::DroppedFragment, source, destination),
        Packet::Malformed => (Counter::DroppedMalformed, nowhere, nowhere),
        Packet::Udp(datagram) => {
            return dns::answer(&ctx, datagram).unwrap_or_else(|| {
                count(Counter::UdpPassed);
                TC_ACT_UNSPEC
            });
        }
        Packet::Tcp(segment) => {
            signals::note(&ctx, &segment);
            return TC_ACT_UNSPEC;
        }
        Packet::Other => return TC_ACT_UNSPEC,
    };
    let netns_cookie = || listener::netns_cookie(ctx.as_ptr());
    drops::note(refused, || Dropped { netns_cookie: netns_cookie(), direction: LEAVING, source, destination });
    TC_ACT_SHOT
}

/// Whether the SYN's own socket may send it, by the kernel's record of that socket.
#[inline(always)]
fn judge(ctx: &TcContext, segment: &Segment) -> Result<(), Counter> {
    let Some(record) = sockets::of_sender(ctx) else {
        // SAFETY: plain helper calls; nothing is kept of what the map gives.
        let is_kept = unsafe { EXISTING.get(bpf_get_socket_cookie(ctx.as_ptr())) }.is_some();
        return if is_kept { Ok(()) } else { Err(Counter::DroppedUnattestedSyn) };
    };
    if record.is(SocketKind::Daemon) {
        return Ok(());
    }
    if !record.is(SocketKind::DirectClient) {
        return Err(Counter::DroppedUnattestedSyn);
    }
    if attestation::offer(record, segment) { Ok(()) } else { Err(Counter::DroppedUnattestable) }
}
