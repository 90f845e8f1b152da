//! The certificate authority over the network: Istio's certificate service, its client and its server.
//!
//! `istio.v1.auth.IstioCertificateService/CreateCertificate` is as Istio's agents speak it. Beside it,
//! `mesh.identity.v1.TrustService/WatchTrustBundle` tells nodes at once of roots and revocation lists, which otherwise travel with
//! certificates alone; a CA without it serves as well.
#![forbid(unsafe_code)]

mod args;
mod authority;
mod client;
mod connector;
mod gatekeeper;
mod link;
mod proto;
mod rate;
mod server;
mod service;
mod wire;

pub use args::{IdentityArgs, time};
pub use authority::{Authority, AuthorityError, RemoteSettings};
pub use client::CaClient;
pub use gatekeeper::{Caller, Denial, Gatekeeper, caller, replica};
pub use link::{Link, explain};
pub use proto::{CreateCertificateRequest, CreateCertificateResponse};
pub use server::{ConnectionPlace, ServeError, ServerIdentity, accept, serve};
pub use service::{CaService, Outcome, Outcomes};

/// The DNS name by which the server of a cluster's CA is known.
pub const SERVER_NAME: &str = "istiod.istio-system.svc";
