//! A cluster on one machine: nodes and pods made of network namespaces, veth pairs, bridges and cgroups.
//!
//! ```no_run
//! use mesh_lab::{Lab, Place, PodSpec, ServiceSpec};
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::builder().node("node-a").node("node-b").build()?;
//! lab.namespace("shop")?;
//! let server = lab.deploy(
//!     PodSpec::new("shop", "cart-1").on("node-b").label("app", "cart").port("http", 8080)
//!         .command(["mesh-traffic", "echo", "--listen", "[::]:8080"]),
//! )?;
//! let client = lab.deploy(PodSpec::new("shop", "client").on("node-a"))?;
//! let service = lab.service(ServiceSpec::new("shop", "cart").select("app", "cart").port("http", 80, 8080))?;
//! let capture = lab.capture("node-a")?;
//! client.exec(&["mesh-traffic", "connect", "--to", &service.at(80).to_string()])?.success()?;
//! assert!(!capture.stop()?.packets().is_empty());
//! # Ok(()) }
//! ```
//!
//! The lab does what Kubernetes does below the mesh: it gives pods a sandbox and addresses, keeps EndpointSlices,
//! routes between nodes and translates Service addresses with nftables. What the mesh sees (manifests in
//! [`Lab::config_dir`], kubelet's cgroup layout, `/proc`) is what a real node shows it.
//!
//! Everything a lab makes carries the pid and start time of the process that owns it. It is removed when the [`Lab`]
//! is dropped, on a panic too, after Ctrl-C where [`on_interrupt`] was called, and otherwise when the next lab starts.
#![forbid(unsafe_code)]

mod addresses;
mod binaries;
mod builder;
mod capture;
mod cgroup;
mod config_dir;
mod daemon;
mod envoy;
mod http;
mod ingress;
mod lab;
mod leftovers;
mod manifests;
mod metrics;
mod netns;
mod network;
mod node;
mod owner;
mod packet;
mod pcap;
mod place;
mod pod;
mod pod_spec;
mod process;
mod requirements;
mod rules;
mod sandbox;
mod service;
mod state;
mod stream;
mod tls;
mod wait;
mod waypoint;
mod yaml;

pub use binaries::binary;
pub use builder::LabBuilder;
pub use capture::{Capture, Packets, Tap};
pub use daemon::{Daemon, DaemonOptions};
pub use envoy::envoy;
pub use ingress::Ingress;
pub use lab::Lab;
pub use leftovers::{kept, on_interrupt, remains, remove, rest_if_interrupted, sweep};
pub use metrics::{Metrics, Sample};
pub use node::{CgroupDriver, Node, NodeService, Outside};
pub use packet::{Packet, TcpSegment, Transport};
pub use place::Place;
pub use pod::{Addresses, Pod};
pub use pod_spec::{PodSpec, Readiness};
pub use process::{Output, Process};
pub use service::{Protocol, Service, ServicePort, ServiceSpec};
pub use stream::Stream;
pub use tls::{TlsRecord, TlsSession};
pub use wait::wait_until;
pub use waypoint::Waypoint;
