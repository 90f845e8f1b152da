//! getpeername() and accept() on an IPv6 socket: the application sees whom it talks to.

use crate::sockets;
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    let call = ctx.sock_addr;
    // SAFETY: the context is valid for the whole run of the program, and has a socket.
    let sk = unsafe { (*call).__bindgen_anon_1.sk };
    let Some(record) = sockets::find(sk) else {
        return 1;
    };
    if !sockets::shows_its_peer(record) {
        return 1;
    }
    // SAFETY: getpeername6 may write these fields of its context.
    unsafe {
        (*call).user_ip6[0] = record.peer.words_be[0];
        (*call).user_ip6[1] = record.peer.words_be[1];
        (*call).user_ip6[2] = record.peer.words_be[2];
        (*call).user_ip6[3] = record.peer.words_be[3];
        (*call).user_port = u32::from(record.peer.port_be);
    }
    1
}
