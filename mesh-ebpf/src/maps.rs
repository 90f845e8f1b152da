//! The maps. Their names and value types are in `mesh-abi`; user space pins them.

use aya_ebpf::{
    Global,
    btf_maps::{HashMap, LruHashMap, PerCpuArray, SkStorage},
    macros::btf_map,
};
use mesh_abi::{Counter, FlowKey, PodRecord, SockAddress, SocketRecord};

/// More pods than any node runs (kubelet's default limit is 110).
const MAX_PODS: usize = 4096;
/// Connections between SYN and accept(). The least recently used is given up first: the daemon then
/// finds no original destination and resets the connection.
const MAX_PENDING_FLOWS: usize = 65_536;

#[btf_map]
pub static PODS: HashMap<u64, PodRecord, MAX_PODS> = HashMap::new();

#[btf_map]
pub static SOCKETS: SkStorage<SocketRecord> = SkStorage::new();

#[btf_map]
pub static OUTBOUND_FLOWS: LruHashMap<FlowKey, SockAddress, MAX_PENDING_FLOWS> = LruHashMap::new();

#[btf_map]
pub static INBOUND_FLOWS: LruHashMap<FlowKey, SockAddress, MAX_PENDING_FLOWS> = LruHashMap::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Counter::COUNT as usize }> = PerCpuArray::new();

/// Cgroup id of the daemon that loaded these programs; set before load.
#[unsafe(no_mangle)]
pub static DAEMON_CGROUP_ID: Global<u64> = Global::new(0);

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot belongs to this CPU and programs are not preempted by others of their kind here;
        // a lost increment from a nested softirq is harmless.
        unsafe { *slot += 1 };
    }
}
