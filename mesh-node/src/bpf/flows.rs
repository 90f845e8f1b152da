//! Who is at the other end of a loopback connection: one table for each worker thread.

use std::{cell::RefCell, net::SocketAddr, os::fd::AsRawFd, path::Path};

use aya::maps::{HashMap, Map, MapData, MapError, SkStorage};
use mesh_abi::{FlowKey, OriginalDestination, SocketKind, SocketRecord, map_names};

use super::{
    address,
    maps::{MapAccessError, open},
};

/// The maps by which the daemon and the kernel tell each other of connections.
pub struct FlowTable {
    outbound: RefCell<HashMap<MapData, FlowKey, OriginalDestination>>,
    sockets: RefCell<SkStorage<MapData, SocketRecord>>,
}

impl FlowTable {
    /// Opens the pinned maps in `maps`.
    ///
    /// # Errors
    /// A map is not there or has another layout.
    pub fn open(maps: &Path) -> Result<Self, MapAccessError> {
        Ok(Self {
            outbound: RefCell::new(open(maps, map_names::OUTBOUND_FLOWS, Map::LruHashMap)?),
            sockets: RefCell::new(open(maps, map_names::SOCKETS, Map::SkStorage)?),
        })
    }

    /// Where the redirected connection from `source` wanted to go, and the random number by which the kernel would have
    /// picked among a Service's endpoints, where it did. The entry is used up.
    /// `None`: the kernel did not redirect this connection, or its entry was given up.
    pub fn take_original_destination(
        &self,
        netns_cookie: u64,
        source: SocketAddr,
        listener: SocketAddr,
    ) -> Option<(SocketAddr, Option<u32>)> {
        let key = FlowKey { netns_cookie, source: address::to_map(source), destination: address::to_map(listener) };
        let mut outbound = self.outbound.borrow_mut();
        let original = outbound.get(&key, 0).ok()?;
        // Another remover can only be the kernel's own eviction.
        let _ = outbound.remove(&key);
        Some((address::from_map(original.address), (original.dice != 0).then_some(original.dice)))
    }

    /// Says whom the application shall see when the daemon's `socket` connects to it.
    ///
    /// # Errors
    /// The socket's record could not be written.
    pub fn announce_client(&self, socket: &impl AsRawFd, client: SocketAddr) -> Result<(), MapAccessError> {
        let record = SocketRecord::new(SocketKind::Daemon, address::to_map(client));
        let mut sockets = self.sockets.borrow_mut();
        sockets.insert(socket, record, 0).map_err(|source: MapError| MapAccessError::Entry {
            name: map_names::SOCKETS,
            operation: "announce a client",
            source,
        })
    }
}
