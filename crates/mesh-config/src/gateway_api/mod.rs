//! Kinds of gateway.networking.k8s.io.

mod backend_tls_policy;
pub(crate) mod connection_route;
mod filters;
mod gateway;
pub(crate) mod grpc_route;
pub(crate) mod http_route;
mod listener;
mod listener_set;
mod namespace_selector;
mod reference;
mod reference_grant;
mod route;
mod session_persistence;
mod tls;

pub(crate) use backend_tls_policy::TargetPort;
pub use backend_tls_policy::{Authorities, BackendTlsPolicy};
pub use connection_route::ConnectionRoute;
pub use gateway::{Gateway, Ingress, Role};
pub(crate) use http_route::RawMatch;
pub use listener::{AllowedNamespaces, Listener, ListenerProtocol, SecretRef};
pub use listener_set::ListenerSet;
pub use namespace_selector::NamespaceSelector;
pub use reference::{BackendRef, ListenersOf, ListenersRef, Parent};
pub use reference_grant::ReferenceGrant;
pub use route::{Route, RouteRule};
pub use tls::{ClientValidation, GatewayTls, RootsRef};
