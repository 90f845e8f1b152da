//! The waypoint as a program, between a client's node, endpoints' nodes and real servers, each test in a network namespace of
//! its own. Needs root.

mod access_logs;
mod admin;
mod authorizers;
mod bad_requests;
mod bad_responses;
mod client_certificates;
mod collector;
mod declared_tcp;
mod draining;
mod egress;
mod endings;
mod floods;
mod gateway;
mod hops;
mod http2;
mod issuer;
mod jaeger;
mod kept_state;
mod key_sets;
mod locality;
mod metrics;
mod names;
mod origination;
mod otlp_logs;
mod proxied;
mod rate_limits;
mod requests;
mod routes;
mod server;
mod stalls;
mod telemetry_metrics;
mod tokens;
mod traces;
mod upgrades;
mod world;
