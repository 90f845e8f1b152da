//! Everything that talks to eBPF: the loader, the pinned maps and the hooks on pods' interfaces.
//! No other module of the daemon knows aya.

mod address;
mod cgroup;
mod direct;
mod direct_events;
mod direct_signals;
mod drop_events;
mod existing;
mod flows;
mod hooks;
mod hosts;
mod interfaces;
mod kernel_events;
mod link_state;
mod links;
mod loader;
mod log;
mod maps;
mod precheck;
mod probe_ports;
mod repair;
mod ring;
mod ring_buffer;
mod settings;
mod syscall;

pub use direct::{Attested, DirectId, DirectMaps, KernelService, NetnsCookies, Permission, now};
pub use direct_events::{DirectEvent, DirectEvents, SocketEnd, What};
pub use direct_signals::{DirectSignal, DirectSignals, Shown};
pub use drop_events::{DropEvent, DropEvents};
pub use existing::ExistingMap;
pub use flows::FlowTable;
pub use hooks::{HookWatch, foreign_connect_hooks, pod_hooks};
pub use hosts::{HostMaps, HostTables};
pub use kernel_events::KernelEvents;
pub use loader::{Datapath, EnrolError, KeptHook, LoadOptions};
pub use log::forward_logs;
pub use maps::{CounterReader, MapAccessError, changes_in_order};
pub use precheck::{precheck, requirements};
pub use probe_ports::ProbePorts;
pub use settings::Settings;
