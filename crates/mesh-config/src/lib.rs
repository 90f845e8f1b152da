//! Kubernetes manifests to the mesh's model.
//!
//! A directory of YAML and JSON is read ([`load`]) and followed ([`watch`]); [`translate`] turns the objects into a
//! [`mesh_core::Snapshot`] and never fails as a whole. What is wrong is a [`Finding`] with a stable code, a place and a
//! remedy, while the rest, and the last good version of what broke, stay in force.
#![forbid(unsafe_code)]

mod code;
mod config;
mod credential;
mod directory;
mod document;
mod finding;
mod gateway_api;
mod istio;
mod kind;
mod known_texts;
mod kubernetes;
mod last_good;
mod limits;
mod list_text;
mod live;
mod object;
mod own;
mod probes;
mod publishing;
mod reading;
mod review;
#[cfg(feature = "schema")]
pub mod schema;
mod served;
mod status;
mod texts;
mod translate;
mod watch;

pub use code::{Code, Severity};
pub use config::{Config, Credentials, NamedKind, NamedObjects, Options, load};
pub use credential::{CaBundle, Secret};
pub use directory::DirectoryError;
pub use finding::{Finding, ObjectName, Origin};
pub use gateway_api::{
    AllowedNamespaces, BackendRef, ConnectionRoute, Gateway, Listener, ListenerProtocol, ListenerSet, ListenersOf,
    ListenersRef, NamespaceSelector, Parent, ReferenceGrant, Role, Route, RouteRule, SecretRef,
};
pub use istio::{
    Age, AuthorizationPolicy, Carries, Clients, ConnectionMatch, ConnectionRule, DestinationRule, HttpRule,
    IstioGateway, LimitSource, MeshConfig, PeerAuthentication, Remark, Server, ServerTls, Telemetry, VirtualService,
};
pub use kind::{ReadKind, read_kinds};
pub use live::LiveObjects;
pub use object::{Key, Located, ObjectSet};
pub use publishing::put_in_force;
pub use review::review;
pub use served::{Served, Source};
pub use status::{
    BackendTlsStatus, GatewayStatus, ListenerSetStatus, ListenerStatus, ParentStatus, Refusal, RouteStatus, Statuses,
};
pub use translate::{Change, Changes};
pub use watch::watch;
