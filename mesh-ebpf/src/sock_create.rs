//! Creation of a socket: the kernel's own record of which sockets are the daemon's.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_current_cgroup_id, bpf_get_netns_cookie},
    macros::cgroup_sock,
    programs::SockContext,
};
use mesh_abi::{SockAddress, SocketKind, SocketRecord};

use crate::{maps::DAEMON_CGROUP_ID, sockets};

#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    // SAFETY: plain helper call.
    if unsafe { bpf_get_current_cgroup_id() } == DAEMON_CGROUP_ID.load() {
        let mut record = SocketRecord::new(SocketKind::Daemon, SockAddress::default());
        // SAFETY: plain helper call.
        record.netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
        // Without memory for the record the daemon's socket is treated as anybody's: refused, not leaked.
        let _ = sockets::find_or_create(ctx.sock, &mut record);
    }
    1
}
