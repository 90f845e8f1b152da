//! What the kernel tells of direct connections, in which the daemon has no part.

use std::{io, path::Path, time::Duration};

use mesh_abi::{DirectEventKind, direct::END_ORDERLY, map_names};

use super::{
    address,
    direct::{Attested, DirectId, NetnsCookies},
    ring::{Ring, RingError},
};

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectEvent {
    /// Which connection.
    pub connection: Attested,
    /// When, on the clock of [`super::now`].
    pub at: Duration,
    /// What happened.
    pub what: What,
}

/// What happened to a direct connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The client's handshake is done.
    Opened,
    /// The client's socket has closed; `accepted` says whether the server's was there.
    ClientClosed {
        /// How.
        end: SocketEnd,
        /// Whether an event of the server's socket is to come.
        accepted: bool,
    },
    /// The server's socket has closed.
    ServerClosed(SocketEnd),
    /// The server refused, or did not answer.
    Failed,
}

/// How a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketEnd {
    /// In order, rather than by a reset or a timeout.
    pub orderly: bool,
    /// Payload that it sent and the other end acknowledged.
    pub sent: u64,
    /// Octets that it received, the other's FIN among them where it came.
    pub received: u64,
}

/// The kernel's events. A ring buffer has one reader: there may be one of these.
pub struct DirectEvents(Ring);

impl DirectEvents {
    /// Opens the pinned ring buffer in `maps`; in a runtime.
    ///
    /// # Errors
    /// It is not there, or the runtime cannot watch it.
    pub(super) fn open(maps: &Path) -> Result<Self, RingError> {
        Ring::open(maps, map_names::DIRECT_EVENTS).map(Self)
    }

    /// Waits until there are events.
    ///
    /// # Errors
    /// The runtime is ending.
    pub async fn ready(&mut self) -> io::Result<()> {
        self.0.ready().await
    }

    /// The next event, if there is one now.
    pub fn next(&mut self) -> Option<DirectEvent> {
        loop {
            let event = parse(&self.0.next()?);
            if event.is_some() {
                return event;
            }
        }
    }
}

/// `None`: it is of a kind that this daemon does not know.
fn parse(event: &mesh_abi::DirectEvent) -> Option<DirectEvent> {
    let end = SocketEnd { orderly: event.end == END_ORDERLY, sent: event.sent, received: event.received };
    let kinds = [
        (DirectEventKind::Opened, What::Opened),
        (DirectEventKind::ClientClosed, What::ClientClosed { end, accepted: event.accepted != 0 }),
        (DirectEventKind::ServerClosed, What::ServerClosed(end)),
        (DirectEventKind::Failed, What::Failed),
    ];
    let (_, what) = kinds.into_iter().find(|(kind, _)| *kind as u32 == event.kind)?;
    let connection = Attested {
        client: address::from_map(event.client),
        server: address::from_map(event.server),
        asked: address::from_map(event.asked),
        id: DirectId { cookie: event.cookie, isn: event.isn },
        netns_cookies: NetnsCookies { client: event.client_netns_cookie, server: event.server_netns_cookie },
    };
    Some(DirectEvent { connection, at: Duration::from_nanos(event.at_ns), what })
}
