//! getsockname() on an IPv4 socket: the pod's own address instead of loopback.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use mesh_abi::{SockAddress, SocketKind};

use crate::sockets;

#[cgroup_sock_addr(getsockname4)]
pub fn getsockname4(ctx: SockAddrContext) -> i32 {
    let call = ctx.sock_addr;
    // SAFETY: the context is valid for the whole run of the program, and has a socket.
    let sk = unsafe { (*call).__bindgen_anon_1.sk };
    let Some(record) = sockets::find(sk) else {
        return 1;
    };
    let local = record.local_words_be;
    // SAFETY: as above; the fields are words.
    let shown = unsafe { SockAddress::v4((*call).user_ip4, 0) };
    if !record.is(SocketKind::Outbound) || !shown.is_local() || local == [0; 4] {
        return 1;
    }
    // SAFETY: getsockname4 may write these fields of its context.
    unsafe {
        (*call).user_ip4 = local[3];
    }
    1
}
