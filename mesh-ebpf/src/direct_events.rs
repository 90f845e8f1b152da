//! What the daemon is told of direct connections, in which it has no part.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use mesh_abi::{
    Counter, DirectEvent, DirectEventKind, DirectKey, SocketRecord,
    direct::{END_ABORTED, END_ORDERLY},
};

use crate::maps::{DIRECT_EVENTS, count};

/// States of a TCP socket (include/net/tcp_states.h).
const SYN_SENT: u32 = 2;
const FIN_WAIT_2: u32 = 5;
const LAST_ACK: u32 = 9;
const CLOSING: u32 = 11;

/// A socket's numbers at an event.
#[derive(Clone, Copy)]
pub struct Numbers {
    /// `tcp_sock.bytes_acked`: its SYN and its FIN count as well.
    pub bytes_acked: u64,
    /// `tcp_sock.bytes_received`: the peer's FIN counts as well.
    pub bytes_received: u64,
    /// Whether all that was sent is acknowledged.
    pub all_acknowledged: bool,
}

/// The client's handshake is done.
#[inline(always)]
pub fn opened(key: DirectKey, record: &SocketRecord) {
    emit(event(DirectEventKind::Opened, key, record));
}

/// The client's socket has gone from `state` to closed; `accepted` says whether the server's socket was there.
#[inline(always)]
pub fn client_closed(key: DirectKey, record: &SocketRecord, state: u32, numbers: &Numbers, accepted: bool) {
    if state == SYN_SENT {
        return emit(event(DirectEventKind::Failed, key, record));
    }
    let mut event = closed(DirectEventKind::ClientClosed, key, record, state, numbers);
    event.sent = event.sent.saturating_sub(1);
    event.accepted = accepted.into();
    emit(event);
}

/// The server's socket has gone from `state` to closed. Its SYN was acknowledged before there was a socket to count it.
#[inline(always)]
pub fn server_closed(key: DirectKey, record: &SocketRecord, state: u32, numbers: &Numbers) {
    emit(closed(DirectEventKind::ServerClosed, key, record, state, numbers));
}

#[inline(always)]
fn closed(kind: DirectEventKind, key: DirectKey, record: &SocketRecord, state: u32, numbers: &Numbers) -> DirectEvent {
    let last_state = state == CLOSING || state == LAST_ACK;
    let fin_acknowledged = state == FIN_WAIT_2 || (last_state && numbers.all_acknowledged);
    let mut event = event(kind, key, record);
    event.end = if fin_acknowledged { END_ORDERLY } else { END_ABORTED };
    event.sent = numbers.bytes_acked.saturating_sub(fin_acknowledged.into());
    event.received = numbers.bytes_received;
    event
}

#[inline(always)]
fn event(kind: DirectEventKind, key: DirectKey, record: &SocketRecord) -> DirectEvent {
    DirectEvent {
        kind: kind as u32,
        // SAFETY: plain helper call.
        at_ns: unsafe { bpf_ktime_get_ns() },
        cookie: record.cookie,
        client_netns_cookie: record.netns_cookie,
        server_netns_cookie: record.server_netns_cookie,
        client: key.client,
        server: key.server,
        asked: record.peer,
        isn: record.isn,
        ..DirectEvent::default()
    }
}

#[inline(always)]
fn emit(event: DirectEvent) {
    if DIRECT_EVENTS.output(event, 0).is_err() {
        count(Counter::LostDirectEvent);
    }
}
