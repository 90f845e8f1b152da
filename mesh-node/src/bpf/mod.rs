//! Everything that talks to eBPF: the loader, the pinned maps and the hooks on pods' interfaces.
//! No other module of the daemon knows aya.

mod address;
mod cgroup;
mod flows;
mod interfaces;
mod links;
mod loader;
mod maps;
mod precheck;

pub use flows::FlowTable;
pub use interfaces::InterfaceError;
pub use loader::{Datapath, EnrolError, LoadError, LoadOptions};
pub use maps::{CounterReader, MapAccessError};
pub use precheck::{PrecheckError, precheck};
