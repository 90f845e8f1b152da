//! `mesh-tunnel/1`: a TLS connection that carries one application connection at a time, without HTTP/2.
//!
//! Chosen by ALPN between nodes and waypoints of this mesh. Each TLS record's content begins with one byte that says what it is:
//!
//! ```text
//! 1 REQUEST   client: the target on the first line, then `name: value` lines (forwarded, baggage, traceparent)
//! 2 RESPONSE  server: a status of HTTP's as three digits
//! 3 DATA      either: bytes of the application
//! 4 FIN       either: no more DATA will come
//! 5 RESET     either: the application's connection was reset; the TLS connection closes
//! ```
//!
//! A tunnel is REQUEST, RESPONSE, DATA in both directions, FIN in both. After that the connection takes the next
//! REQUEST, without a new handshake. There is no flow control but TCP's, and a stream's end without FIN is a reset.

mod burst;
mod closing;
mod frame;
mod request;
mod server;
mod stream;
mod tunnel;

pub use closing::{Fate, TunnelEnd};
pub use frame::TunnelError;
pub use stream::DirectStream;
pub use tunnel::DirectTunnel;

pub(crate) use burst::{Burst, Parts};
pub(crate) use closing::{CloseOnDrop, Closing};
pub(crate) use frame::{Frame, receive, send, split};
pub(crate) use request::{encode_request, parse_request, parse_status};
pub(crate) use server::serve;
pub(crate) use tunnel::{Home, reset};

/// The protocol's name in ALPN.
pub const ALPN: &[u8] = b"mesh-tunnel/1";
