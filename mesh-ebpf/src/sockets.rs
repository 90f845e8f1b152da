//! Socket records: the kernel's memory of who made a socket and of what its application shall see.

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::generated::{bpf_sk_fullsock, bpf_sk_storage_get},
    programs::TcContext,
};
use mesh_abi::{FramePosition, SocketKind, SocketRecord};

use crate::maps::{POSITIONS, SOCKETS};

/// The record of `sk`, if it has one.
#[inline(always)]
pub fn find<'a>(sk: *mut bpf_sock) -> Option<&'a mut SocketRecord> {
    storage(&SOCKETS, sk, core::ptr::null_mut(), 0)
}

/// The record of `sk`, made from `initial` if there was none.
#[inline(always)]
pub fn find_or_create<'a>(sk: *mut bpf_sock, initial: &mut SocketRecord) -> Option<&'a mut SocketRecord> {
    storage(&SOCKETS, sk, initial, BPF_SK_STORAGE_GET_F_CREATE.into())
}

/// Where `sk` is in its HTTP/2, if it is followed.
#[inline(always)]
pub fn position<'a>(sk: *mut bpf_sock) -> Option<&'a mut FramePosition> {
    storage(&POSITIONS, sk, core::ptr::null_mut(), 0)
}

/// Begins to follow `sk` in its HTTP/2, from `initial` on. False: the kernel has no memory for it.
#[inline(always)]
pub fn follow(sk: *mut bpf_sock, initial: &mut FramePosition) -> bool {
    storage(&POSITIONS, sk, initial, BPF_SK_STORAGE_GET_F_CREATE.into()).is_some()
}

/// The socket that sends a packet; null where there is none.
#[inline(always)]
pub fn sender(ctx: &TcContext) -> *mut bpf_sock {
    // SAFETY: the context is valid for the whole run of the program; the verifier requires the null checks.
    unsafe {
        let sk = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if sk.is_null() { sk } else { bpf_sk_fullsock(sk) }
    }
}

/// The record of the socket that sends a packet.
#[inline(always)]
pub fn of_sender<'a>(ctx: &TcContext) -> Option<&'a mut SocketRecord> {
    find(sender(ctx))
}

/// Whether the application shall see the record's peer in place of the socket's own.
#[inline(always)]
pub fn shows_its_peer(record: &SocketRecord) -> bool {
    record.is(SocketKind::Outbound) || record.is(SocketKind::Inbound) || record.is(SocketKind::DirectClient)
}

#[inline(always)]
fn storage<'a, T>(map: &SkStorage<T>, sk: *mut bpf_sock, initial: *mut T, flags: u64) -> Option<&'a mut T> {
    if sk.is_null() {
        return None;
    }
    let map = core::ptr::from_ref(map).cast_mut().cast();
    // SAFETY: `sk` is a socket (the verifier checks it), and the helper returns null or a pointer to a
    // whole record that lives as long as the socket, which outlives the program's run.
    unsafe { bpf_sk_storage_get(map, sk.cast(), initial.cast(), flags).cast::<T>().as_mut() }
}
