//! One daemon takes over from another: listeners pass on, with the connections that wait in them, and what is established
//! drains where it is.
//!
//! ```text
//! successor                          predecessor
//!   Hello                  ->
//!                          <-          Welcome, with the metrics and readiness listeners (or Declined)
//!   loads and attaches its hooks beside the other's
//!   Lend                   ->          stops comparing and repairing
//!                          <-          Lent, with every pod's listeners
//!   joins the pods with them, and waits for certificates
//!   Commit                 ->          takes nothing new any more
//!                          <-          Committed
//!   detaches the other's hooks, accepts    drains, and ends
//! ```
//!
//! Until Commit, the predecessor alone accepts; a successor that dies before that changes nothing. The socket stays open
//! after it: its end is the predecessor's.

mod message;
mod predecessor;
mod state;
mod successor;
mod vacancy;

use std::path::{Path, PathBuf};

pub use predecessor::{Predecessor, Released};
pub use state::{HandoverOutcome, HandoverState};
pub use successor::{Inheritance, Lifeline, Succession};
pub use vacancy::until_vacant;

/// Where a daemon whose admin API is at `admin_socket` listens for its successor.
#[must_use]
pub fn socket_path(admin_socket: &Path) -> PathBuf {
    admin_socket.with_extension("handover")
}
