//! Kubelet's probes: connections to pods of this node that the kernel saw kubelet make, whatever their addresses say.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockAddrContext,
};
use mesh_abi::{ProbePort, Setting, SockAddress, SocketKind, SocketRecord};

use crate::{
    maps::{LOCAL, PROBE_PORTS, setting},
    outbound, sockets,
};

/// Notes a connect() from outside all enrolled pods, if kubelet makes it to one of them.
#[inline(always)]
pub fn note(ctx: &SockAddrContext, destination: SockAddress) {
    let (kubelet, netns) = (setting(Setting::KubeletCgroup), setting(Setting::ProbesFromNetns));
    if (kubelet == 0 && netns == 0) || !outbound::is_stream(ctx) {
        return;
    }
    // SAFETY: the value is copied at once.
    let Some(server) = (unsafe { LOCAL.get(destination.words_be).copied() }) else {
        return;
    };
    // SAFETY: plain helper calls; the context has a socket.
    let (cgroup, netns_cookie) = unsafe { (bpf_get_current_cgroup_id(), bpf_get_netns_cookie(ctx.as_ptr())) };
    let is_kubelet = kubelet != 0 && cgroup == kubelet;
    if !is_kubelet && !(netns != 0 && netns_cookie == netns && is_probed(server, destination)) {
        return;
    }
    let mut record = SocketRecord::new(SocketKind::Probe, destination);
    record.server_netns_cookie = server;
    record.netns_cookie = netns_cookie;
    // SAFETY: as above.
    let sk = unsafe {
        record.cookie = bpf_get_socket_cookie(ctx.as_ptr());
        (*ctx.sock_addr).__bindgen_anon_1.sk
    };
    // Without memory for the record the probe is plaintext like any other.
    if let Some(kept) = sockets::find_or_create(sk, &mut record) {
        *kept = record;
    }
}

/// Whether the pod declares a probe at this port: what is let in of the node's own where kubelet cannot be told apart.
#[inline(always)]
fn is_probed(server: u64, destination: SockAddress) -> bool {
    // SAFETY: the value is not read.
    unsafe { PROBE_PORTS.get(ProbePort::new(server, destination.port())) }.is_some()
}
