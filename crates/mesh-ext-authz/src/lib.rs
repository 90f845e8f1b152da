//! Envoy's protocol of external authorization (envoyproxy.io, api-v3/service/auth/v3): what an authorizer is told of a request,
//! and what it answers, by gRPC and by HTTP. Only messages: who sends them is the waypoint.
#![forbid(unsafe_code)]

mod answer;
mod changes;
mod check;
pub mod grpc;
pub mod http;
mod proto;

pub use answer::{Answer, Denied, Malformed};
pub use changes::Changes;
pub use check::{Check, Party, Shown};

/// Bytes of an answer at most.
pub const MAX_ANSWER: usize = 256 << 10;
