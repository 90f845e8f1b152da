//! The admin API's server, which node daemon and waypoint share: JSON over HTTP/1.1 on a Unix socket and on loopback, to root
//! and to the program's own user alone.
//!
//! The paths and types are `mesh-admin`'s. A program is an [`Api`]: it says what answers a request.
#![forbid(unsafe_code)]

mod answer;
mod cgroup;
mod endpoint;
mod flows;
mod log;
mod log_control;
mod log_output;
mod loopback;
mod query;
mod request;
mod server;
mod socket;
mod summary;
mod traffic;

pub use answer::{Answer, json, refuse};
pub use cgroup::PodCgroups;
pub use endpoint::{
    Endpoint, EndpointAnswer, EndpointError, METRICS, READINESS, serve_endpoint, serve_metrics, serve_readiness,
};
pub use flows::flows;
pub use log::{log_filter, set_log_filter};
pub use log_control::{LogControl, LogFilterError};
pub use log_output::{ACCESS, LogLine, LogOutput};
pub use loopback::serve_loopback;
pub use query::{Query, bad_query, method_not_allowed, unknown_path};
pub use request::{Asked, request};
pub use server::{Api, Routed, serve};
pub use socket::{AdminSocket, AdminSocketError};
pub use summary::{certificate, certificates, config, seconds_until};
pub use traffic::traffic;
