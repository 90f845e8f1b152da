//! HBONE: one HTTP/2 CONNECT stream per connection, over mTLS; wire compatible with Istio's ztunnel.

mod client;
mod headers;
mod keepalive;
mod pool;
mod request;
mod server;
mod tunnel;

pub use client::ConnectError;
pub use headers::{AuthorityError, forwarded_header, parse_authority, parse_forwarded};
pub use pool::{Pool, PoolKey};
pub use request::{ConnectRequest, TunnelRequest};
pub use server::{ServeError, Server};
pub use tunnel::{H2Tunnel, Tunnel};
