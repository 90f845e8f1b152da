//! Kinds of the mesh's own, for what neither Istio nor the Gateway API has a kind.

mod rate_limit_policy;
#[cfg(feature = "schema")]
pub(crate) mod schema;

pub(crate) use rate_limit_policy::{MAX_LIMITS, read as read_rate_limit_policy};
