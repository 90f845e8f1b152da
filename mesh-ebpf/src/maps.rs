//! The maps. Their names and value types are in `mesh-abi`; user space pins them.

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, SkStorage},
    macros::btf_map,
};
use mesh_abi::{
    AskerRecord, Attestation, Budget, Counter, DirectEvent, DirectKey, DirectPair, DropEvent, Exchange, FlowKey,
    FramePosition, HostKey, HostRecord, OriginalDestination, PodRecord, ProbePort, ServiceRecord, Setting, Signal,
    SignalHead, SockAddress, SocketRecord, direct::MAX_PAIRS, dns::MAX_HOSTS, service::MAX_SERVICES,
    signal::RING_OCTETS,
};

/// More pods than any node runs (kubelet's default limit is 110).
const MAX_PODS: usize = 4096;
/// Connections between SYN and accept(). The least recently used is given up first: the daemon then
/// finds no original destination and resets the connection.
const MAX_PENDING_FLOWS: usize = 65_536;
/// Two addresses for each pod.
const MAX_LOCAL_ADDRESSES: usize = 2 * MAX_PODS;
/// Direct connections that are open at once. A SYN that finds no room is dropped, and sent again by its socket.
const MAX_DIRECT_CONNECTIONS: usize = 131_072;
/// Octets of events that the daemon may be behind: some 7,000 of them.
const EVENT_OCTETS: usize = 1 << 20;
/// Connections from before their pods joined that the daemon keeps in mind.
const MAX_EXISTING: usize = 131_072;
/// Octets of events of drops that the daemon may be behind: some 900 of them.
const DROP_OCTETS: usize = 1 << 16;
/// Ports at which kubelet knocks at the node's pods.
const MAX_PROBE_PORTS: usize = 16_384;
/// Memory for entries that are there, not for all that could be.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub static PODS: HashMap<u64, PodRecord, MAX_PODS> = HashMap::new();

#[btf_map]
pub static SOCKETS: SkStorage<SocketRecord> = SkStorage::new();

#[btf_map]
pub static OUTBOUND_FLOWS: LruHashMap<FlowKey, OriginalDestination, MAX_PENDING_FLOWS> = LruHashMap::new();

#[btf_map]
pub static INBOUND_FLOWS: LruHashMap<FlowKey, SockAddress, MAX_PENDING_FLOWS> = LruHashMap::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Counter::COUNT as usize }> = PerCpuArray::new();

#[btf_map]
pub static LOCAL: HashMap<[u32; 4], u64, MAX_LOCAL_ADDRESSES, ON_DEMAND> = HashMap::new();

#[btf_map]
pub static DIRECT: HashMap<DirectPair, u32, MAX_PAIRS, ON_DEMAND> = HashMap::new();

#[btf_map]
pub static SERVICES: HashMap<SockAddress, ServiceRecord, MAX_SERVICES, ON_DEMAND> = HashMap::new();

#[btf_map]
pub static ATTESTATIONS: HashMap<DirectKey, Attestation, MAX_DIRECT_CONNECTIONS, ON_DEMAND> = HashMap::new();

#[btf_map]
pub static PROBE_PORTS: HashMap<ProbePort, u32, MAX_PROBE_PORTS, ON_DEMAND> = HashMap::new();

/// The daemon writes it; what it holds outlives the daemon.
#[btf_map]
pub static EXISTING: HashMap<u64, u64, MAX_EXISTING, ON_DEMAND> = HashMap::new();

#[btf_map]
pub static DIRECT_EVENTS: RingBuf<DirectEvent, EVENT_OCTETS> = RingBuf::new();

#[btf_map]
pub static DROP_EVENTS: RingBuf<DropEvent, DROP_OCTETS> = RingBuf::new();

#[btf_map]
pub static DROP_BUDGETS: PerCpuArray<Budget, { Counter::COUNT as usize }> = PerCpuArray::new();

#[btf_map]
pub static SIGNALS: RingBuf<SignalHead, RING_OCTETS> = RingBuf::new();

#[btf_map]
pub static SIGNAL: PerCpuArray<Signal, 1> = PerCpuArray::new();

#[btf_map]
pub static SIGNAL_BUDGET: PerCpuArray<Budget, 1> = PerCpuArray::new();

#[btf_map]
pub static POSITIONS: SkStorage<FramePosition> = SkStorage::new();

#[btf_map]
pub static SETTINGS: Array<u64, { Setting::COUNT as usize }> = Array::new();

#[btf_map]
pub static HOSTS: HashMap<HostKey, HostRecord, MAX_HOSTS, ON_DEMAND> = HashMap::new();

#[btf_map]
pub static ASKERS: HashMap<u64, AskerRecord, MAX_PODS, ON_DEMAND> = HashMap::new();

#[btf_map]
pub static EXCHANGE: PerCpuArray<Exchange, 1> = PerCpuArray::new();

/// Cgroup id of the daemon that loaded these programs; set before load.
#[unsafe(no_mangle)]
pub static DAEMON_CGROUP_ID: Global<u64> = Global::new(0);

/// A number that the daemon has set; 0 before.
#[inline(always)]
pub fn setting(setting: Setting) -> u64 {
    SETTINGS.get(setting as u32).copied().unwrap_or(0)
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot belongs to this CPU and programs are not preempted by others of their kind here;
        // a lost increment from a nested softirq is harmless.
        unsafe { *slot += 1 };
    }
}
