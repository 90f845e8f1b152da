//! TCP life-cycle events: tells each end of a loopback connection between an application and the
//! daemon who is at the other one, and the daemon of direct connections, in which it has no part.

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_HDR_OPT_LEN_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
        BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG, bpf_sock, bpf_sock_ops,
    },
    helpers::generated::bpf_get_netns_cookie,
    macros::sock_ops,
    programs::SockOpsContext,
};
use mesh_abi::{DirectKey, FlowKey, OriginalDestination, SockAddress, SocketKind, SocketRecord};

use crate::{
    attestation,
    direct_events::{self, Numbers},
    maps::{INBOUND_FLOWS, OUTBOUND_FLOWS, PODS},
    sockets,
};

const AF_INET: u32 = 2;
/// `BPF_ANY`
const ANY: u64 = 0;
/// `TCP_SYN_SENT` and `TCP_CLOSE` (include/net/tcp_states.h).
const SYN_SENT: u32 = 2;
const CLOSE: u32 = 7;

#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => begin(&ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => connected(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(&ctx),
        BPF_SOCK_OPS_HDR_OPT_LEN_CB => sending(&ctx),
        BPF_SOCK_OPS_STATE_CB if new_state(&ctx) == CLOSE => closed(&ctx),
        _ => {}
    }
    1
}

/// Before a SYN leaves.
#[inline(always)]
fn begin(ctx: &SockOpsContext) {
    let Some(record) = sockets::find(socket(ctx)) else {
        return;
    };
    if record.is(SocketKind::DirectClient) {
        return watch(ctx, 0);
    }
    if record.is(SocketKind::Probe) {
        return watch(ctx, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
    }
    if record.peer.port_be != 0 {
        publish(ctx, record);
    }
}

/// Says where a redirected connection wanted to go, and for whom the daemon dials.
#[inline(always)]
fn publish(ctx: &SockOpsContext, record: &SocketRecord) {
    let key = FlowKey { netns_cookie: netns_cookie(ctx), source: local(ctx.ops), destination: remote(ctx.ops) };
    // A full map gives up its oldest entry; a failed insert is noticed by the other end, which then
    // finds no entry and refuses (outbound) or shows the daemon's address (inbound).
    if record.is(SocketKind::Outbound) {
        let original = OriginalDestination { address: record.peer, dice: record.dice };
        let _ = OUTBOUND_FLOWS.insert(key, original, ANY);
    } else if record.is(SocketKind::Daemon) {
        let _ = INBOUND_FLOWS.insert(key, record.peer, ANY);
    }
}

/// Asks for the socket's changes of state, and for `more`. Where that is refused, the daemon's audit of attestations
/// finds the connection's end.
#[inline(always)]
fn watch(ctx: &SockOpsContext, more: u32) {
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG | more;
    let _ = ctx.set_cb_flags(flags as i32);
}

/// The kernel makes a segment's options. Of a probe's SYN, this is the moment in which its number is known and no hook
/// of ours is on the interface: the node's own.
#[inline(always)]
fn sending(ctx: &SockOpsContext) {
    // SAFETY: the context is valid for the whole run of the program, and its socket is a full one.
    let (state, isn) = unsafe { ((*ctx.ops).state, (*ctx.ops).snd_una) };
    if state != SYN_SENT {
        return;
    }
    if let Some(record) = sockets::find(socket(ctx))
        && record.is(SocketKind::Probe)
    {
        attestation::offer_probe(&client_key(ctx.ops), record, isn);
    }
}

#[inline(always)]
fn connected(ctx: &SockOpsContext) {
    let Some(record) = sockets::find(socket(ctx)) else {
        return;
    };
    if record.is(SocketKind::DirectClient) {
        direct_events::opened(client_key(ctx.ops), record);
    } else if record.is(SocketKind::Probe) {
        let flags = ctx.cb_flags() & !BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
        let _ = ctx.set_cb_flags(flags as i32);
    }
}

/// A listener has a new connection, before accept() returns it.
#[inline(always)]
fn accepted(ctx: &SockOpsContext) {
    let netns_cookie = netns_cookie(ctx);
    let (client, server) = (remote(ctx.ops), local(ctx.ops));
    // SAFETY: the value is not read.
    let is_enrolled = unsafe { PODS.get(netns_cookie) }.is_some();
    if is_enrolled && let Some(mut record) = attestation::take(&DirectKey { client, server }, netns_cookie) {
        if sockets::find_or_create(socket(ctx), &mut record).is_some() {
            watch(ctx, 0);
        }
        return;
    }
    // Also in a pod that has just left: the daemon still carries what was on its way to it.
    adopt(ctx, FlowKey { netns_cookie, source: client, destination: server });
}

/// Takes the real client's address over from the daemon's side.
#[inline(always)]
fn adopt(ctx: &SockOpsContext, key: FlowKey) {
    // SAFETY: the value is copied at once.
    let Some(client) = (unsafe { INBOUND_FLOWS.get(key).copied() }) else {
        return;
    };
    let _ = INBOUND_FLOWS.remove(key);
    let mut record = SocketRecord::new(SocketKind::Inbound, client);
    let _ = sockets::find_or_create(socket(ctx), &mut record);
}

/// A socket that is watched has closed, from whatever state.
#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let Some(record) = sockets::find(socket(ctx)) else {
        return;
    };
    let state = ctx.arg(0);
    if record.is(SocketKind::Probe) {
        attestation::end(&client_key(ctx.ops), record);
    } else if record.is(SocketKind::DirectClient) {
        let key = client_key(ctx.ops);
        let accepted = attestation::end(&key, record);
        direct_events::client_closed(key, record, state, &numbers(ctx.ops), accepted);
    } else if record.is(SocketKind::DirectServer) {
        let key = DirectKey { client: remote(ctx.ops), server: local(ctx.ops) };
        direct_events::server_closed(key, record, state, &numbers(ctx.ops));
    }
}

/// The connection of a socket that has dialled.
#[inline(always)]
fn client_key(ops: *mut bpf_sock_ops) -> DirectKey {
    DirectKey { client: local(ops), server: remote(ops) }
}

#[inline(always)]
fn new_state(ctx: &SockOpsContext) -> u32 {
    ctx.arg(1)
}

#[inline(always)]
fn numbers(ops: *mut bpf_sock_ops) -> Numbers {
    // SAFETY: the context is valid for the whole run of the program, and its socket is a full one.
    unsafe {
        Numbers {
            bytes_acked: (*ops).bytes_acked,
            bytes_received: (*ops).bytes_received,
            all_acknowledged: (*ops).snd_una == (*ops).snd_nxt,
        }
    }
}

#[inline(always)]
fn netns_cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: plain helper call (Linux 5.15 for this program type).
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

#[inline(always)]
fn socket(ctx: &SockOpsContext) -> *mut bpf_sock {
    // SAFETY: the context is valid for the whole run of the program.
    unsafe { (*ctx.ops).__bindgen_anon_2.sk }
}

#[inline(always)]
fn local(ops: *mut bpf_sock_ops) -> SockAddress {
    // SAFETY: the context is valid for the whole run of the program. `local_port` is in host order.
    unsafe {
        let port_be = ((*ops).local_port as u16).to_be();
        if (*ops).family == AF_INET {
            SockAddress::v4((*ops).local_ip4, port_be)
        } else {
            let words = &raw const (*ops).local_ip6;
            SockAddress::v6(read_words(words), port_be)
        }
    }
}

#[inline(always)]
fn remote(ops: *mut bpf_sock_ops) -> SockAddress {
    // SAFETY: the context is valid for the whole run of the program. `remote_port` is in network
    // order in the upper half of a big-endian word.
    unsafe {
        let port_be = (u32::from_be((*ops).remote_port) as u16).to_be();
        if (*ops).family == AF_INET {
            SockAddress::v4((*ops).remote_ip4, port_be)
        } else {
            let words = &raw const (*ops).remote_ip6;
            SockAddress::v6(read_words(words), port_be)
        }
    }
}

/// Word by word: the verifier allows no wider access to this context.
///
/// # Safety
/// `words` must point into the program's context.
#[inline(always)]
unsafe fn read_words(words: *const [u32; 4]) -> [u32; 4] {
    let first = words.cast::<u32>();
    // SAFETY: four words, by the caller's word; volatile so that they are not merged.
    unsafe {
        [
            first.read_volatile(),
            first.add(1).read_volatile(),
            first.add(2).read_volatile(),
            first.add(3).read_volatile(),
        ]
    }
}
