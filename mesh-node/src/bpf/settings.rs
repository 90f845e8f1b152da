//! Numbers that the daemon sets and the programs read.

use std::path::Path;

use aya::maps::{Array, Map, MapData};
use mesh_abi::{Setting, map_names};

use super::maps::{MapAccessError, open};

/// The settings.
pub struct Settings(Array<MapData, u64>);

impl Settings {
    /// Opens the pinned map in `maps`.
    ///
    /// # Errors
    /// It is not there or has another layout.
    pub fn open(maps: &Path) -> Result<Self, MapAccessError> {
        open(maps, map_names::SETTINGS, Map::Array).map(Self)
    }

    /// Sets one.
    ///
    /// # Errors
    /// The map refused.
    pub fn set(&mut self, setting: Setting, value: u64) -> Result<(), MapAccessError> {
        let set = self.0.set(setting as u32, value, 0);
        set.map_err(|source| MapAccessError::Entry { name: map_names::SETTINGS, operation: "set a number", source })
    }
}
