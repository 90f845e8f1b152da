//! A way to end tunnels from outside of the task that carries them.

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::task::Waker;

use tokio::sync::Notify;

use crate::verify::VerifyError;

/// Why a tunnel was ended that might have gone on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TunnelEnd {
    /// The peer's certificate was revoked, or its root is trusted no more.
    #[error("the peer's certificate is accepted no more: {0}")]
    Untrusted(VerifyError),
    /// The peer is no workload of the mesh any more.
    #[error("the peer, {0}, is no workload of the mesh any more")]
    WorkloadGone(String),
}

/// Turns true once, for everyone who waits and everyone who asks later.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    closed: Cell<bool>,
    reason: OnceCell<TunnelEnd>,
    notify: Notify,
    /// Who polls a stream, by [`Side`].
    wakers: RefCell<[Option<Waker>; 2]>,
}

/// A direction of a stream, each of which one task polls at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Read,
    Write,
}

impl Closing {
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.notify.notify_waiters();
        self.wakers.take().into_iter().flatten().for_each(Waker::wake);
    }

    /// Has whoever polls that side of a stream woken by the end, in place of who did before.
    pub(crate) fn wake(&self, side: Side, waker: &Waker) {
        let slot = &mut self.wakers.borrow_mut()[side as usize];
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    /// Closes, and says why.
    pub(crate) fn end(&self, reason: TunnelEnd) {
        // The first reason stays.
        let _ = self.reason.set(reason);
        self.close();
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

/// What became of a tunnel's connection, for whoever carried the tunnel.
#[derive(Debug, Clone)]
pub struct Fate(pub(crate) Rc<Closing>);

impl Fate {
    /// Why the connection was ended, where it was not by the peer, the application or its pod's leaving.
    #[must_use]
    pub fn reason(&self) -> Option<&TunnelEnd> {
        self.0.reason.get()
    }
}
