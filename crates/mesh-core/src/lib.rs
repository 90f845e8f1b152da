//! The domain of the mesh: who a workload is, what the cluster looks like, where a connection goes,
//! and whether it may.
//!
//! Pure: no I/O, no async, no clock, no randomness. What these would give is passed in.
#![forbid(unsafe_code)]

pub mod direct;
pub mod entry;
mod few;
pub mod hosts;
pub mod identity;
pub mod l7;
mod label_set;
pub mod labels;
pub mod locality;
pub mod lock;
pub mod model;
pub mod ordered;
pub mod policy;
pub mod propagation;
pub mod provider;
pub mod rate_limit;
pub mod resolve;
pub mod snapshot;
pub mod standard_labels;
pub mod telemetry;
pub mod trace_context;
mod unwatched;
pub mod why;
mod workload_uid;

pub use entry::{EndpointTraits, Entry, NamedEndpoint, Resolution};
pub use few::Few;
pub use identity::{IdentityError, SpiffeId, TrustDomain};
pub use label_set::LabelSet;
pub use locality::{Locality, Placement};
pub use model::{
    Endpoint, Enrolment, NodeName, OutsideReason, Protocol, Service, ServicePort, Speaks, Template, Workload,
};
pub use policy::{Policies, PolicyName};
pub use provider::{Provider, Providers};
pub use resolve::{Destination, PlaintextReason, Refusal, Transport, forbids_plaintext, resolve, transport_to};
pub use snapshot::Snapshot;
pub use trace_context::{TraceContext, TraceParentError};
pub use unwatched::{NO_REQUEST_METRICS, Unwatched};
pub use workload_uid::WorkloadUid;
