//! Kubernetes' own kinds, without what is never looked at: of a Pod that is nearly all.

mod address;
mod endpoint_slice;
mod node;
mod pod;
pub(crate) mod trimmed;

pub use address::Address;
pub(crate) use endpoint_slice::SERVICE_NAME;
pub use endpoint_slice::{EndpointSlice, SlicePort};
pub use node::Node;
pub use pod::Pod;
pub(crate) use trimmed::TRAFFIC_DISTRIBUTION;
