//! A way to end tunnels from outside of the task that carries them.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;

use tokio::sync::Notify;

/// Turns true once, for everyone who waits and everyone who asks later.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    closed: Cell<bool>,
    notify: Notify,
}

impl Closing {
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.notify.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(crate) async fn closed(&self) {
        let mut notified = pin!(self.notify.notified());
        notified.as_mut().enable();
        if !self.is_closed() {
            notified.await;
        }
    }
}

/// Closes when dropped.
pub(crate) struct CloseOnDrop(pub(crate) Rc<Closing>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}
