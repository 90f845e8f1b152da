//! connect() on an IPv6 socket, IPv4-mapped destinations included.

use aya_ebpf::{bindings::bpf_sock_addr, macros::cgroup_sock_addr, programs::SockAddrContext};
use aya_log_ebpf::debug;
use mesh_abi::{
    SockAddress, ports,
    sock_address::{LOOPBACK_V4_BE, LOOPBACK_V6_BE},
};

use crate::{
    outbound::{self, Verdict},
    probe,
};

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let call = ctx.sock_addr;
    // SAFETY: the context is valid for the whole run of the program; its fields are words.
    let (words_be, port_be) = unsafe { ((*call).user_ip6, (*call).user_port as u16) };
    let destination = SockAddress::v6(words_be, port_be);
    let Some(pod) = outbound::pod(&ctx) else {
        probe::note(&ctx, destination);
        return 1;
    };
    if !outbound::is_stream(&ctx) {
        return 1;
    }
    match outbound::decide(&ctx, pod, destination) {
        Verdict::Pass => 1,
        Verdict::Deny => 0,
        Verdict::Direct(endpoint) => {
            lead(call, &endpoint);
            1
        }
        Verdict::Redirect => {
            // By the family that the packets will have.
            let port_be = ports::OUTBOUND.to_be();
            if destination.is_v4() {
                lead(call, &SockAddress::v4(LOOPBACK_V4_BE, port_be));
            } else {
                lead(call, &SockAddress::v6(LOOPBACK_V6_BE, port_be));
            }
            debug!(&ctx, "connect6 port {} redirected", u16::from_be(port_be));
            1
        }
    }
}

/// Rewrites where the call goes.
#[inline(always)]
fn lead(call: *mut bpf_sock_addr, to: &SockAddress) {
    // SAFETY: connect6 may write these fields of its context.
    unsafe {
        (*call).user_ip6[0] = to.words_be[0];
        (*call).user_ip6[1] = to.words_be[1];
        (*call).user_ip6[2] = to.words_be[2];
        (*call).user_ip6[3] = to.words_be[3];
        (*call).user_port = u32::from(to.port_be);
    }
}
