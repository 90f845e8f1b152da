//! Flow events: requests as they end, and connections that nobody looks into as they begin and end, for whoever listens now. It
//! costs a look at a number while nobody does.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use mesh_admin::Flow;
use tokio::sync::broadcast;

/// Events that a listener may be behind; a slower one loses the oldest, and learns how many.
const BUFFERED: usize = 4096;

/// The stream of events.
pub(crate) struct Flows {
    events: broadcast::Sender<Arc<Flow>>,
    /// The next flow's number.
    next: AtomicU64,
}

impl Default for Flows {
    fn default() -> Self {
        Self { events: broadcast::Sender::new(BUFFERED), next: AtomicU64::new(1) }
    }
}

impl Flows {
    /// Listens from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Arc<Flow>> {
        self.events.subscribe()
    }

    /// Whether anybody listens.
    pub(crate) fn is_heard(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// A number for a connection, of which more than one thing is told.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells whoever listens of a connection that has its number already.
    pub(crate) fn tell_of(&self, flow: impl FnOnce() -> Flow) {
        if self.is_heard() {
            // The last listener may have left just now.
            let _ = self.events.send(Arc::new(flow()));
        }
    }

    /// Tells whoever listens; the flow is made, with its number, only where somebody does.
    pub(crate) fn tell(&self, flow: impl FnOnce(u64) -> Flow) {
        self.tell_of(|| flow(self.number()));
    }
}
