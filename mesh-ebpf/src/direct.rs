//! Whether a connect() goes straight to a pod of this node, and to which.
//!
//! Whatever is not plainly so goes by the daemon, which decides with all that it knows.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock,
    helpers::generated::{bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_ktime_get_ns},
    programs::SockAddrContext,
};
use mesh_abi::{
    DirectPair, PodRecord, ServiceRecord, Setting, SockAddress, SocketKind, SocketRecord,
    direct::{DIRECT as ALLOWED, WATCHED},
    ports,
    service::{LISTED_ENDPOINTS, picked},
};

use crate::{
    listener,
    maps::{DIRECT, LOCAL, SERVICES, setting},
};

/// `IPPROTO_TCP`; MPTCP is another one, whose further paths no hook on connect() sees.
const TCP: u32 = 6;

/// Where a connect() leads that an enrolled pod makes.
pub enum Route {
    /// Straight to a pod of this node; the record for the socket.
    Direct(SocketRecord),
    /// To the daemon, with the random number that picked a Service's endpoint; 0: none did.
    ByDaemon { dice: u32 },
}

const BY_DAEMON: Route = Route::ByDaemon { dice: 0 };

/// Decides for a socket of `pod`, whose namespace's cookie is `netns_cookie`.
#[inline(always)]
pub fn route(ctx: &SockAddrContext, pod: &PodRecord, netns_cookie: u64, asked: SockAddress) -> Route {
    // SAFETY: the context is valid for the whole run of the program.
    if unsafe { (*ctx.sock_addr).protocol } != TCP || !in_force() {
        return BY_DAEMON;
    }
    // SAFETY: map values are only read, and a racing update changes whole records.
    let (endpoint, dice) = match unsafe { SERVICES.get(asked) } {
        Some(service) => {
            let dice = roll();
            match local_endpoint(service, picked(dice, service.endpoints)) {
                Some(endpoint) => (endpoint, dice),
                None => return Route::ByDaemon { dice },
            }
        }
        None => (asked, 0),
    };
    match attestable(ctx, pod, netns_cookie, &endpoint) {
        Some((server_netns_cookie, is_watched)) => {
            let mut record = SocketRecord::new(SocketKind::DirectClient, asked).watched_if(is_watched);
            record.local_words_be = if endpoint.is_v4() { pod.v4_words_be } else { pod.v6_words_be };
            record.endpoint = endpoint;
            record.netns_cookie = netns_cookie;
            record.server_netns_cookie = server_netns_cookie;
            // SAFETY: plain helper call.
            record.cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
            Route::Direct(record)
        }
        None => Route::ByDaemon { dice },
    }
}

/// Whether the kernel may connect these pods at this port (host order), and then whether what they say is to be shown.
#[inline(always)]
pub fn permission(client_netns_cookie: u64, server_netns_cookie: u64, port: u16) -> Option<bool> {
    let exact = DirectPair::new(client_netns_cookie, server_netns_cookie, u32::from(port));
    let any = DirectPair::new(client_netns_cookie, server_netns_cookie, DirectPair::ANY_PORT);
    // SAFETY: map values are copied at once.
    let verdict = unsafe { DIRECT.get(exact).or_else(|| DIRECT.get(any)).copied() };
    match verdict {
        Some(ALLOWED) => Some(false),
        Some(WATCHED) => Some(true),
        _ => None,
    }
}

/// Whether the daemon stands by its tables. A daemon that hangs does not renew its lease.
#[inline(always)]
fn in_force() -> bool {
    // SAFETY: plain helper call.
    setting(Setting::DirectLease) > unsafe { bpf_ktime_get_ns() }
}

/// A random number that is not 0.
#[inline(always)]
fn roll() -> u32 {
    // SAFETY: plain helper call.
    unsafe { bpf_get_prandom_u32() }.max(1)
}

/// The endpoint at this place, where it is one of this node.
#[inline(always)]
fn local_endpoint(service: &ServiceRecord, place: u32) -> Option<SockAddress> {
    let mut number = 0;
    while number < LISTED_ENDPOINTS {
        let endpoint = &service.local[number];
        if number as u32 >= service.listed {
            return None;
        }
        if endpoint.index == place {
            return Some(endpoint.address);
        }
        number += 1;
    }
    None
}

/// The server's namespace, if the kernel can answer for this connection to it, and whether what they say is to be shown.
#[inline(always)]
fn attestable(
    ctx: &SockAddrContext,
    pod: &PodRecord,
    netns_cookie: u64,
    endpoint: &SockAddress,
) -> Option<(u64, bool)> {
    if ports::is_reserved(endpoint.port()) || !has_own_source(ctx, pod, endpoint) {
        return None;
    }
    // SAFETY: the value is copied at once.
    let server = unsafe { LOCAL.get(endpoint.words_be).copied() }?;
    // To itself a pod's packets go over loopback, where no hook could check them.
    if server == netns_cookie {
        return None;
    }
    let is_watched = permission(netns_cookie, server, endpoint.port())?;
    // Where no daemon is, nothing new begins.
    listener::with(ctx.as_ptr(), ports::OUTBOUND, |_, _| ())?;
    Some((server, is_watched))
}

/// Whether the socket is bound to its pod's own address or to none.
#[inline(always)]
fn has_own_source(ctx: &SockAddrContext, pod: &PodRecord, endpoint: &SockAddress) -> bool {
    // SAFETY: the context is valid for the whole run of the program, and has a socket; its fields are words.
    unsafe {
        let sk: *mut bpf_sock = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if sk.is_null() {
            return false;
        }
        if endpoint.is_v4() {
            let source = (*sk).src_ip4;
            return source == 0 || source == pod.v4_words_be[3];
        }
        let source = (*sk).src_ip6;
        source == [0; 4] || source == pod.v6_words_be
    }
}
