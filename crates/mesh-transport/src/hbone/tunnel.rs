//! An open tunnel, whatever carries it.

use std::cell::Cell;
use std::fmt;
use std::rc::{Rc, Weak};

use h2::{RecvStream, SendStream};
use tokio::net::TcpStream;

use crate::buffer::Chunk;
use crate::direct::{Closing, DirectTunnel, Fate};

/// An open tunnel to the far side. Dropping it before both directions ended resets it.
#[derive(Debug)]
pub enum Tunnel {
    /// A TLS connection of its own, between two nodes of this mesh.
    Direct(DirectTunnel),
    /// A stream of an HTTP/2 connection.
    H2(H2Tunnel),
}

/// A stream of an HTTP/2 connection, after the 200.
pub struct H2Tunnel {
    pub(crate) send: SendStream<Chunk>,
    pub(crate) recv: RecvStream,
    /// Keeps the connection from being taken for idle.
    pub(crate) place: Place,
    /// Says why, where the connection is ended.
    pub(crate) closing: Rc<Closing>,
    /// The client's connection; none of a server's.
    pub(crate) socket: Weak<TcpStream>,
}

impl Tunnel {
    /// What becomes of the tunnel's connection; to be asked after the tunnel has ended.
    #[must_use]
    pub fn fate(&self) -> Fate {
        match self {
            Self::Direct(tunnel) => Fate(tunnel.closing.clone()),
            Self::H2(tunnel) => Fate(tunnel.closing.clone()),
        }
    }
}

impl fmt::Debug for H2Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("H2Tunnel").field(&self.recv.stream_id()).finish()
    }
}

/// How many tunnels a connection has, open or being opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Rc<Cell<usize>>);

/// One tunnel's place on its connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Rc<Cell<usize>>);

impl Places {
    pub(crate) fn taken(&self) -> usize {
        self.0.get()
    }

    pub(crate) fn take(&self) -> Place {
        self.0.set(self.0.get() + 1);
        Place(self.0.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
