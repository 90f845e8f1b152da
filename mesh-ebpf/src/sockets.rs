//! Socket records: the kernel's memory of who made a socket and of what its application shall see.

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::generated::{bpf_sk_fullsock, bpf_sk_storage_get},
    programs::TcContext,
};
use mesh_abi::{SocketKind, SocketRecord};

use crate::maps::SOCKETS;

/// The record of `sk`, if it has one.
#[inline(always)]
pub fn find<'a>(sk: *mut bpf_sock) -> Option<&'a mut SocketRecord> {
    storage(sk, core::ptr::null_mut(), 0)
}

/// The record of `sk`, made from `initial` if there was none.
#[inline(always)]
pub fn find_or_create<'a>(sk: *mut bpf_sock, initial: &mut SocketRecord) -> Option<&'a mut SocketRecord> {
    storage(sk, initial, BPF_SK_STORAGE_GET_F_CREATE.into())
}

/// The record of the socket that sends a packet.
#[inline(always)]
pub fn of_sender<'a>(ctx: &TcContext) -> Option<&'a mut SocketRecord> {
    // SAFETY: the context is valid for the whole run of the program; the verifier requires the null checks.
    let sk = unsafe {
        let sk = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        bpf_sk_fullsock(sk)
    };
    find(sk)
}

/// Whether the application shall see the record's peer in place of the socket's own.
#[inline(always)]
pub fn shows_its_peer(record: &SocketRecord) -> bool {
    record.is(SocketKind::Outbound) || record.is(SocketKind::Inbound) || record.is(SocketKind::DirectClient)
}

#[inline(always)]
fn storage<'a>(sk: *mut bpf_sock, initial: *mut SocketRecord, flags: u64) -> Option<&'a mut SocketRecord> {
    if sk.is_null() {
        return None;
    }
    let map = core::ptr::addr_of!(SOCKETS).cast_mut().cast();
    // SAFETY: `sk` is a socket (the verifier checks it), and the helper returns null or a pointer to a
    // whole record that lives as long as the socket, which outlives the program's run.
    unsafe { bpf_sk_storage_get(map, sk.cast(), initial.cast(), flags).cast::<SocketRecord>().as_mut() }
}
