//! A process above the daemon's that keeps the pods' listeners (`--keep-listeners`): after a crash it starts the daemon again at
//! once, which has them back with the connections that wait in them.
//!
//! ```text
//! daemon                             keeper
//!   Lend                     ->
//!                            <-        Lent, with every listener that is kept
//!   joins the pods with them
//!   Keep, Forget             ->        as listeners come and go
//!   HandedOver               ->        before another daemon has them
//! ```
//!
//! The keeper accepts nothing, carries nothing and has no keys. It ends as its daemon does where that ends as asked, and gives up
//! where the daemon crashes again soon: its end closes the listeners, so that clients are refused and do not wait for nobody.
//!
//! It stays where its daemon has handed over and ended: who saw it end would start it again, as kubelet does a container, and it would
//! take the node back from the next daemon. Where nobody is in charge any more, it starts its own again.

mod held;
mod process;

use serde::{Deserialize, Serialize};

pub use self::{held::Keeper, process::run};

/// The variable by which a daemon knows that its standard input is its keeper: how often that has started it again.
const RESTARTS: &str = "MESH_NODE_RESTARTS";

/// Whether this process is the daemon below a keeper.
#[must_use]
pub fn is_above() -> bool {
    std::env::var_os(RESTARTS).is_some()
}

/// One packet between a daemon and its keeper, which are of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Message {
    /// The daemon asks for what is kept.
    Lend,
    /// Some of it.
    Lent {
        /// Whether these are the last.
        last: bool,
    },
    /// A listener, to be kept under its socket's cookie.
    Keep {
        /// `SO_COOKIE`
        socket: u64,
    },
    /// One that is to be kept no more.
    Forget {
        /// `SO_COOKIE`
        socket: u64,
    },
    /// Nothing is kept any more: another daemon is in charge, and this one not to be started again beside it.
    HandedOver,
}
