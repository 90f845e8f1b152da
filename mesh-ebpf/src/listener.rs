//! The daemon's listeners, found by lookup in the namespace at hand and proven by socket storage.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1},
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_release},
};
use mesh_abi::{SocketKind, SocketRecord, ports, sock_address::LOOPBACK_V4_BE};

use crate::sockets;

/// Size of the IPv4 part of a `bpf_sock_tuple`.
pub const TUPLE_V4: u32 = 12;

/// Runs `work` on the daemon's listener at `port` (host order) of the context's network namespace, with its record.
/// `None`: nobody listens there, or somebody else does.
#[inline(always)]
pub fn with<T>(ctx: *mut c_void, port: u16, work: impl FnOnce(*mut bpf_sock, &SocketRecord) -> T) -> Option<T> {
    let mut tuple = v4_tuple(0, LOOPBACK_V4_BE, 0, port.to_be());
    // SAFETY: the tuple is whole for its size; a socket that is found is released after its last use.
    unsafe {
        let sk = bpf_sk_lookup_tcp(ctx, &raw mut tuple, TUPLE_V4, BPF_F_CURRENT_NETNS as u64, 0);
        if sk.is_null() {
            return None;
        }
        let outcome = match sockets::find(sk) {
            Some(record) if record.is(SocketKind::Daemon) => Some(work(sk, record)),
            _ => None,
        };
        bpf_sk_release(sk.cast());
        outcome
    }
}

/// The cookie of the context's network namespace by the daemon's listener in it, since TC programs cannot ask for it before
/// Linux 6.12; 0 where there is no daemon.
#[inline(always)]
pub fn netns_cookie(ctx: *mut c_void) -> u64 {
    with(ctx, ports::PLAINTEXT_INBOUND, |_, record| record.netns_cookie).unwrap_or(0)
}

/// A connection over IPv4, all in network byte order.
#[inline(always)]
pub fn v4_tuple(saddr: u32, daddr: u32, sport: u16, dport: u16) -> bpf_sock_tuple {
    let ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 { saddr, daddr, sport, dport };
    // SAFETY: all zeroes is a valid value of these integers; the kernel reads the whole of the v4 part.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    tuple.__bindgen_anon_1.ipv4 = ipv4;
    tuple
}
