//! Kubernetes' own kinds, without what is never looked at: of a Pod that is nearly all.

mod address;
mod endpoint_slice;
mod node;
mod pod;
mod service;
pub(crate) mod trimmed;

pub use address::Address;
pub(crate) use endpoint_slice::SERVICE_NAME;
pub use endpoint_slice::{EndpointSlice, SlicePort};
pub use node::Node;
pub(crate) use pod::DNS_CAPTURE;
pub use pod::{Pod, PodTemplate};
pub use service::Service;
pub(crate) use service::TRAFFIC_DISTRIBUTION;
