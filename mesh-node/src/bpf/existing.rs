//! The connections that pods had before they joined, kept in the kernel so that the next daemon knows them too.

use std::path::Path;

use aya::maps::{HashMap, Map, MapData, MapError};
use mesh_abi::map_names;

use super::maps::{MapAccessError, open};

/// Sockets by their cookies, with the cookie of the network namespace of each. The programs do not read it.
pub struct ExistingMap(HashMap<MapData, u64, u64>);

impl ExistingMap {
    pub(super) fn open(maps: &Path) -> Result<Self, MapAccessError> {
        open(maps, map_names::EXISTING, Map::HashMap).map(Self)
    }

    /// Keeps a socket in mind.
    ///
    /// # Errors
    /// There is no room.
    pub fn insert(&mut self, socket_cookie: u64, netns_cookie: u64) -> Result<(), MapAccessError> {
        self.0.insert(socket_cookie, netns_cookie, 0).map_err(|source| Self::error("keep a connection", source))
    }

    /// Forgets a socket; one that is not there is no error.
    ///
    /// # Errors
    /// The map refused.
    pub fn remove(&mut self, socket_cookie: u64) -> Result<(), MapAccessError> {
        match self.0.remove(&socket_cookie) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(source) => Err(Self::error("forget a connection", source)),
        }
    }

    /// The cookies of the sockets of a network namespace.
    pub fn of(&self, netns_cookie: u64) -> Vec<u64> {
        self.0
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, netns)| *netns == netns_cookie)
            .map(|(socket, _)| socket)
            .collect()
    }

    fn error(operation: &'static str, source: MapError) -> MapAccessError {
        MapAccessError::Entry { name: map_names::EXISTING, operation, source }
    }
}
