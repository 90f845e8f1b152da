//! connect() on an IPv4 socket.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use aya_log_ebpf::debug;
use mesh_abi::{SockAddress, ports, sock_address::LOOPBACK_V4_BE};

use crate::{
    outbound::{self, Verdict},
    probe,
};

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let call = ctx.sock_addr;
    // SAFETY: the context is valid for the whole run of the program; its fields are words.
    let (address_be, port_be) = unsafe { ((*call).user_ip4, (*call).user_port as u16) };
    let destination = SockAddress::v4(address_be, port_be);
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
            // SAFETY: as above; connect4 may write both fields.
            unsafe {
                (*call).user_ip4 = endpoint.words_be[3];
                (*call).user_port = u32::from(endpoint.port_be);
            }
            1
        }
        Verdict::Redirect => {
            // SAFETY: as above; connect4 may write both fields.
            unsafe {
                (*call).user_ip4 = LOOPBACK_V4_BE;
                (*call).user_port = u32::from(ports::OUTBOUND.to_be());
            }
            debug!(&ctx, "connect4 {:i}:{} redirected", u32::from_be(address_be), u16::from_be(port_be));
            1
        }
    }
}
