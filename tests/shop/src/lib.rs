//! The shop: six small programs that know nothing of a mesh, for tests and demonstrations.
//!
//! `frontend` answers `GET /checkout` and calls `cart`, `product` and `order` over HTTP/1.1;
//! `order` calls `payment` over gRPC and `notification` over a line protocol on plain TCP.
//! Every answer carries a [`Hop`] of each program that took part: its name, version, node, and the
//! peer's address that its `accept()` returned. So a person sees who answered, and for whom.
//!
//! All payloads are plaintext on purpose: a capture can be searched for the marker and for the card
//! number of a checkout.
#![forbid(unsafe_code)]

mod about;
pub mod cart;
pub mod catalogue;
mod charge;
pub mod checkout;
mod connections;
mod exchange;
mod failure;
pub mod frontend;
pub mod notification;
mod notify;
pub mod order;
pub mod payment;
mod peers;
pub mod product;
mod server;
mod tracing_headers;
mod upstream;

pub use about::{About, Hop};
pub use catalogue::catalogue;
pub use failure::Failure;
pub use peers::{Address, AddressError, PeerError, Peers};
