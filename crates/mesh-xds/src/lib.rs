//! The configuration over the network: mesh-control serves the objects in force by Envoy's delta xDS
//! (`envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources`), and nodes translate them as they do
//! manifests.
//!
//! [`State`] is what is served at one moment, [`Session`] what one subscriber is told of it, [`Replica`] what a subscriber has:
//! pure, and the whole protocol. [`XdsService`] and [`follow`] carry it.
//!
//! Node proxies of Istio's ask for other types on the same stream: [`ADDRESS_TYPE`] and [`AUTHORIZATION_TYPE`] are made of
//! the same configuration, once somebody asks.
#![forbid(unsafe_code)]

mod args;
mod client;
mod in_force;
mod inquiry;
mod istio;
pub mod proto;
mod replica;
mod server;
mod session;
mod state;
mod subscribers;
mod subscription;
mod table;
mod versions;

pub use args::ControlArgs;
pub use client::{Beside, Following, Progress, Standing, apply, follow};
pub use in_force::{Count, InForce};
pub use inquiry::{Inquiry, MAX_WANTED};
pub use istio::{ADDRESS_TYPE, AUTHORIZATION_TYPE, proto as istio_proto};
pub use replica::{Replica, Update};
pub use server::XdsService;
pub use session::Session;
pub use state::{Publication, State};
pub use subscribers::{Subscriber, Subscribers};
pub use subscription::{Delivery, ProtocolError, ResponseSize, Subscription};
pub use table::{Body, OBJECT_TYPE, Resource, Table, Version};
