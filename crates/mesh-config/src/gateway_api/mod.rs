//! Kinds of gateway.networking.k8s.io.

mod filters;
mod gateway;
pub(crate) mod grpc_route;
pub(crate) mod http_route;
mod reference;
mod reference_grant;
mod route;

pub use gateway::{AllowedNamespaces, Gateway};
pub use reference::{BackendRef, Parent};
pub use reference_grant::ReferenceGrant;
pub use route::{Route, RouteRule};
