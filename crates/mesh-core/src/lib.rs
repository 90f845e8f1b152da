//! The domain of the mesh: who a workload is, what the cluster looks like, and where a connection goes.
//!
//! Pure: no I/O, no async, no clock, no randomness. What these would give is passed in.
#![forbid(unsafe_code)]

pub mod identity;
pub mod labels;
pub mod model;
pub mod resolve;
pub mod snapshot;

pub use identity::{IdentityError, SpiffeId, TrustDomain};
pub use model::{Endpoint, Enrolment, NodeName, OutsideReason, Protocol, Service, ServicePort, Workload, WorkloadUid};
pub use resolve::{Destination, PlaintextReason, Refusal, Transport, resolve};
pub use snapshot::Snapshot;
