//! What the tests of the whole mesh share: a mesh of two nodes, servers and clients in its pods, and what the daemons,
//! the kernel and the wire say of their traffic.
#![forbid(unsafe_code)]

mod browser;
mod client;
mod clock;
mod collector;
mod ctl;
mod dialler;
mod go;
mod inside;
mod jaeger;
mod journal;
mod kubelet;
mod mesh;
mod page;
mod pins;
mod prometheus;
mod queues;
mod remote;
mod server;
mod shop;
mod sidecar;
mod store;
mod verdict;

use std::time::Duration;

pub use browser::Browser;
pub use client::{Answer, Connect, Held, traffic};
pub use clock::Clock;
pub use collector::{Collector, Otlp, attribute};
pub use ctl::{ctl, ctl_json, keys};
pub use dialler::{Dialled, Dialler};
pub use go::{flaws_of_dashboards, told_to_istio};
pub use inside::{Syn, inside};
pub use jaeger::Jaeger;
pub use journal::{connections, lines};
pub use kubelet::kubelet;
pub use mesh::{Mesh, NAMESPACE, NODES};
pub use mesh_lab::Waypoint;
pub use page::{Page, edge, picture, shows};
pub use pins::generations;
pub use prometheus::{Prometheus, Scraped, chart_files};
pub use queues::unread;
pub use remote::{Remote, start_control};
pub use server::{client, echo, port, server};
pub use shop::Shop;
pub use sidecar::{Offer, Served, Sidecar, Taken};
pub use store::{STORE, Store};
pub use verdict::{Failure, Verdict};

/// How long anything may take that is awaited by its event. Generous: it bounds a failure, not a success.
pub const PATIENCE: Duration = Duration::from_secs(120);
