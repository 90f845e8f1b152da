//! What connect4 and connect6 decide, once the address is in common form.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_netns_cookie, programs::SockAddrContext};
use mesh_abi::{Counter, PodRecord, SockAddress, SocketKind, SocketRecord, drop::LEAVING, ports};

use crate::{
    direct::{self, Route},
    drops::{self, Dropped},
    maps::{PODS, count},
    sockets,
};

/// `SOCK_STREAM`
const STREAM: u32 = 1;

/// The fate of a connect().
pub enum Verdict {
    /// Goes straight to this pod of the node.
    Direct(SockAddress),
    /// Goes where the application wanted.
    Pass,
    /// Fails with EPERM.
    Deny,
    /// Goes to the daemon's listener on loopback.
    Redirect,
}

/// The enrolled pod whose socket this is, with its namespace's cookie.
#[inline(always)]
pub fn pod<'a>(ctx: &SockAddrContext) -> Option<(u64, &'a PodRecord)> {
    // SAFETY: plain helper call; map values are only read, and a racing update changes whole records.
    unsafe {
        let netns_cookie = bpf_get_netns_cookie(ctx.as_ptr());
        PODS.get(netns_cookie).map(|pod| (netns_cookie, pod))
    }
}

/// Whether the socket is a byte stream; datagrams pass untouched.
#[inline(always)]
pub fn is_stream(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context is valid for the whole run of the program.
    unsafe { (*ctx.sock_addr).type_ == STREAM }
}

/// Decides for a stream socket of an enrolled pod and remembers the original destination.
#[inline(always)]
pub fn decide(ctx: &SockAddrContext, (netns_cookie, pod): (u64, &PodRecord), destination: SockAddress) -> Verdict {
    // SAFETY: the context is valid for the whole run of the program, and has a socket.
    let sk = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    let record = sockets::find(sk);
    if record.as_ref().is_some_and(|it| it.is(SocketKind::Daemon)) {
        return Verdict::Pass;
    }
    let own = destination.same_host(&pod.v4_words_be) || destination.same_host(&pod.v6_words_be);
    if own || destination.is_local() {
        return decide_local(record, (netns_cookie, pod), destination);
    }
    if is_decided(&record, &destination) {
        return Verdict::Pass;
    }
    let mut fresh = match direct::route(ctx, pod, netns_cookie, destination) {
        Route::Direct(record) => record,
        Route::ByDaemon { dice } => redirected(pod, destination, dice),
    };
    match sockets::find_or_create(sk, &mut fresh) {
        Some(record) => *record = fresh,
        None => {
            return deny(Counter::DroppedNoRecord, (netns_cookie, pod), destination);
        }
    }
    if fresh.is(SocketKind::DirectClient) {
        count(Counter::DirectConnected);
        return Verdict::Direct(fresh.endpoint);
    }
    count(Counter::OutboundRedirected);
    Verdict::Redirect
}

/// Refuses a connect() and tells of it. The socket has no address of its own yet: the pod's stands for it.
#[inline(always)]
fn deny(reason: Counter, (netns_cookie, pod): (u64, &PodRecord), destination: SockAddress) -> Verdict {
    drops::note(reason, || {
        let words_be = if destination.is_v4() { pod.v4_words_be } else { pod.v6_words_be };
        Dropped { netns_cookie, direction: LEAVING, source: SockAddress::v6(words_be, 0), destination }
    });
    Verdict::Deny
}

#[inline(always)]
fn redirected(pod: &PodRecord, destination: SockAddress, dice: u32) -> SocketRecord {
    let mut record = SocketRecord::new(SocketKind::Outbound, destination);
    record.local_words_be = if destination.is_v4() { pod.v4_words_be } else { pod.v6_words_be };
    record.dice = dice;
    record
}

/// While one daemon replaces another, both generations of this hook run: the second one sees the endpoint that the
/// first one has picked for a Service, and must not take it for what the application asked for.
#[inline(always)]
fn is_decided(record: &Option<&mut SocketRecord>, destination: &SockAddress) -> bool {
    let picked = |it: &&mut SocketRecord| it.is(SocketKind::DirectClient) && it.endpoint != it.peer;
    record.as_ref().is_some_and(|it| picked(it) && it.endpoint == *destination)
}

/// A connect() that stays in the pod: never redirected, and never to the mesh's own listeners.
#[inline(always)]
fn decide_local(record: Option<&mut SocketRecord>, pod: (u64, &PodRecord), destination: SockAddress) -> Verdict {
    if ports::is_reserved(destination.port()) {
        // While one daemon replaces another, both generations of this hook run: what the first one
        // has redirected reaches the second one as a connect() to the daemon.
        let redirected = record.is_some_and(|it| it.is(SocketKind::Outbound));
        if redirected && destination.port() == ports::OUTBOUND {
            return Verdict::Pass;
        }
        return deny(Counter::DroppedReservedPort, pod, destination);
    }
    if let Some(record) = record {
        *record = SocketRecord::default();
    }
    Verdict::Pass
}
