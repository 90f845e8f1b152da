//! Tunnels over mTLS: asked for, pooled, served.
//!
//! With other meshes' nodes as HBONE, one HTTP/2 CONNECT stream per connection, wire compatible with Istio's ztunnel;
//! between two of ours by what [`crate::direct`] describes, behind the same interface.

mod authority;
mod client;
mod connect_error;
mod headers;
mod keepalive;
mod lane;
mod pool;
mod request;
mod server;
mod stream;
mod tunnel;

pub use authority::{Authority, AuthorityError};
pub use connect_error::{Breakage, ConnectError};
pub use headers::{forwarded_header, parse_forwarded};
pub(crate) use lane::Berth;
pub use pool::{Pool, PoolKey};
pub use request::{ConnectRequest, TunnelRequest};
pub use server::{ServeError, Server};
pub use stream::{H2Stream, TunnelStream};
pub(crate) use tunnel::Place;
pub use tunnel::{H2Tunnel, Tunnel};

pub use crate::direct::{Fate, TunnelEnd};
