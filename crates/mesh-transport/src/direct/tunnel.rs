//! An open direct tunnel, and where its connection goes afterwards.

use std::fmt;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::Closing;
use super::frame::{Frame, seal};
use crate::hbone::{Berth, Place};
use crate::session::Session;
use crate::socket::write_now;

/// An open tunnel that has its TLS connection to itself.
pub struct DirectTunnel {
    pub(crate) session: Box<Session>,
    /// Ends the tunnel when its pod leaves or its server goes.
    pub(crate) closing: Rc<Closing>,
    pub(crate) home: Home,
}

/// Who takes the connection when the tunnel has ended in order.
pub(crate) enum Home {
    /// The client's pool, in which the tunnel has a place.
    Pool(Box<Berth>, Place),
    /// The server's loop.
    Server(oneshot::Sender<Box<Session>>),
}

impl fmt::Debug for DirectTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectTunnel").finish_non_exhaustive()
    }
}

impl Home {
    /// Gives the connection back for the next tunnel.
    pub(crate) fn give_back(self, session: Box<Session>) {
        match self {
            Self::Pool(berth, _place) => berth.park(session),
            // A server loop that is gone wants no more tunnels; the connection closes.
            Self::Server(back) => drop(back.send(session)),
        }
    }
}

/// Ends a tunnel that was reset: by a RESET behind the bytes before it where that can go out now, else by TCP's own.
pub(crate) fn reset(session: Box<Session>, within_record: bool) {
    let told = !within_record
        && seal(&session, Frame::Reset, &[]).is_ok_and(|record| {
            let sent = write_now(&session.socket, &[std::io::IoSlice::new(&record)]);
            matches!(sent, Ok(Some(count)) if count == record.len())
        });
    if !told {
        let _ = session.socket.set_zero_linger();
    }
}
