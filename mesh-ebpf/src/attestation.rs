//! The kernel's word for a direct connection, or a probe: given as the client's own SYN leaves, checked where it arrives.
//!
//! A SYN is known by its addresses and its initial sequence number, which nobody but the client's kernel knows.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use mesh_abi::{
    Attestation, DirectKey, SocketKind, SocketRecord,
    direct::{BETWEEN_PODS, BETWEEN_WATCHED_PODS, OFFERED, PROBE, TAKEN},
    socket,
};

use crate::{direct, maps::ATTESTATIONS, packet::Segment};

/// How long a handshake may go on after its client's last SYN. The client sends that again while it has no answer, and
/// keeps sending the handshake's last segment until it is taken.
const LIFE_NS: u64 = 60_000_000_000;
/// `BPF_ANY`
const ANY: u64 = 0;

/// Attests the SYN that a direct client's socket sends; `record` is the socket's. False: it may not leave.
#[inline(always)]
pub fn offer(record: &mut SocketRecord, segment: &Segment) -> bool {
    let key = segment.key();
    if key.server != record.endpoint || !key.client.same_host(&record.local_words_be) {
        return false;
    }
    record.isn = segment.sequence;
    let kind = if record.watched == socket::UNWATCHED { BETWEEN_PODS } else { BETWEEN_WATCHED_PODS };
    if ATTESTATIONS.insert(key, attestation(record, kind), ANY).is_err() {
        return false;
    }
    // After the entry is there: a daemon that takes the permission away meanwhile either is seen here or sees the entry.
    if direct::permission(record.netns_cookie, record.server_netns_cookie, record.endpoint.port()).is_some() {
        return true;
    }
    let _ = ATTESTATIONS.remove(key);
    false
}

/// Attests the SYN with this number that one of kubelet's sockets is about to send.
#[inline(always)]
pub fn offer_probe(key: &DirectKey, record: &mut SocketRecord, isn: u32) {
    record.isn = isn;
    // Where there is no room, the probe is plaintext like any other.
    let _ = ATTESTATIONS.insert(key, attestation(record, PROBE), ANY);
}

#[inline(always)]
fn attestation(record: &SocketRecord, kind: u32) -> Attestation {
    Attestation {
        offered_ns: now(),
        cookie: record.cookie,
        client_netns_cookie: record.netns_cookie,
        server_netns_cookie: record.server_netns_cookie,
        asked: record.peer,
        isn: record.isn,
        state: OFFERED,
        kind,
    }
}

/// What is known of a segment that no connection owns.
pub enum Finding {
    /// No handshake of these addresses is under way.
    Unknown,
    /// It is part of the handshake that the kernel attested, with the server in this namespace.
    Attested { server_netns_cookie: u64, is_probe: bool },
    /// It has the addresses of an attested handshake and another sequence number.
    Forged,
}

/// Looks a segment up that no connection owns.
#[inline(always)]
pub fn find(segment: &Segment) -> Finding {
    // SAFETY: the value is copied at once.
    let Some(attestation) = (unsafe { ATTESTATIONS.get(segment.key()).copied() }) else {
        return Finding::Unknown;
    };
    if attestation.state != OFFERED || now() - attestation.offered_ns > LIFE_NS {
        return Finding::Unknown;
    }
    // With SYN cookies no socket waits for the segment after the SYN.
    let expected = if segment.opens() { attestation.isn } else { attestation.isn.wrapping_add(1) };
    if segment.sequence == expected {
        Finding::Attested { server_netns_cookie: attestation.server_netns_cookie, is_probe: attestation.kind == PROBE }
    } else {
        Finding::Forged
    }
}

/// The server's socket is there: takes the attestation, so that it admits nobody else. The record for the socket; none
/// for a probe's.
#[inline(always)]
pub fn take(key: &DirectKey, netns_cookie: u64) -> Option<SocketRecord> {
    let attestation = ATTESTATIONS.get_ptr_mut(key)?;
    // SAFETY: the pointer is to a whole value, which other programs may change word by word; nothing is kept of it.
    unsafe {
        if (*attestation).state != OFFERED || (*attestation).server_netns_cookie != netns_cookie {
            return None;
        }
        (*attestation).state = TAKEN;
        if (*attestation).kind == PROBE {
            return None;
        }
        let is_watched = (*attestation).kind == BETWEEN_WATCHED_PODS;
        let mut record = SocketRecord::new(SocketKind::DirectServer, (*attestation).asked).watched_if(is_watched);
        record.cookie = (*attestation).cookie;
        record.netns_cookie = (*attestation).client_netns_cookie;
        record.server_netns_cookie = netns_cookie;
        record.isn = (*attestation).isn;
        Some(record)
    }
}

/// The client's socket is closed: removes its attestation. Whether the server had taken it.
#[inline(always)]
pub fn end(key: &DirectKey, record: &SocketRecord) -> bool {
    // SAFETY: the value is copied at once.
    let Some(attestation) = (unsafe { ATTESTATIONS.get(key).copied() }) else {
        return false;
    };
    if attestation.cookie != record.cookie {
        return false;
    }
    let _ = ATTESTATIONS.remove(key);
    attestation.state == TAKEN
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: plain helper call.
    unsafe { bpf_ktime_get_ns() }
}
