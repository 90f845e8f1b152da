//! Netlink: questions to the kernel about the network namespace that a socket was opened in, and sock_diag(7), by which it
//! tells of TCP sockets and ends them; and what it says of a socket of one's own.
//!
//! What the kernel says is read within bounds: what is cut short or malformed is left out, and nothing here panics.

mod inet_diag;
mod message;
mod sock_diag;
mod socket;
mod tcp_info;

pub use inet_diag::{Holder, TcpConnection, TcpCounters};
pub use message::{attribute, attributes};
pub use sock_diag::{SockDiag, SockDiagError, TcpSockets};
pub use socket::{NetlinkSocket, Subject};
pub use tcp_info::TcpProgress;
