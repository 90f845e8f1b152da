//! Kubelet's probes: connections to pods of this node that the kernel saw kubelet make, whatever their addresses say.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockAddrContext,
};
use mesh_abi::{Setting, SockAddress, SocketKind, SocketRecord};

use crate::{
    maps::{LOCAL, setting},
    outbound, sockets,
};

/// Notes a connect() from outside all enrolled pods, if kubelet makes it to one of them.
#[inline(always)]
pub fn note(ctx: &SockAddrContext, destination: SockAddress) {
    let kubelet = setting(Setting::KubeletCgroup);
    // SAFETY: plain helper call.
    if kubelet == 0 || unsafe { bpf_get_current_cgroup_id() } != kubelet || !outbound::is_stream(ctx) {
        return;
    }
    // SAFETY: the value is copied at once.
    let Some(server) = (unsafe { LOCAL.get(destination.words_be).copied() }) else {
        return;
    };
    let mut record = SocketRecord::new(SocketKind::Probe, destination);
    record.server_netns_cookie = server;
    // SAFETY: plain helper calls; the context has a socket.
    let sk = unsafe {
        record.cookie = bpf_get_socket_cookie(ctx.as_ptr());
        record.netns_cookie = bpf_get_netns_cookie(ctx.as_ptr());
        (*ctx.sock_addr).__bindgen_anon_1.sk
    };
    // Without memory for the record the probe is plaintext like any other.
    if let Some(kept) = sockets::find_or_create(sk, &mut record) {
        *kept = record;
    }
}
