//! The model as map entries, and the maps as the daemon reads them.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use mesh_abi::{Counter, PodRecord, map_names};

use super::address;

/// A pinned map could not be used.
#[derive(Debug, thiserror::Error)]
pub enum MapAccessError {
    /// The map could not be opened by its pin.
    #[error("cannot open the map {name} in {dir}: {source}")]
    Open {
        /// The map's name.
        name: &'static str,
        /// The directory of pins.
        dir: String,
        /// Why.
        source: MapError,
    },
    /// An entry could not be read, written or removed.
    #[error("cannot {operation} in the map {name}: {source}")]
    Entry {
        /// The map's name.
        name: &'static str,
        /// What was tried.
        operation: &'static str,
        /// Why.
        source: MapError,
    },
}

/// Opens a pinned map by its name.
pub(super) fn open<T>(maps: &Path, name: &'static str, kind: fn(MapData) -> Map) -> Result<T, MapAccessError>
where
    T: TryFrom<Map, Error = MapError>,
{
    MapData::from_pin(maps.join(name)).and_then(|data| T::try_from(kind(data))).map_err(|source| MapAccessError::Open {
        name,
        dir: maps.display().to_string(),
        source,
    })
}

/// Opens a pinned ring buffer by its name; gives the octets of records that it has room for, too.
pub(super) fn open_ring(maps: &Path, name: &'static str) -> Result<(MapData, u32), MapAccessError> {
    let map = MapData::from_pin(maps.join(name));
    map.and_then(|map| map.info().map(|info| (map, info.max_entries()))).map_err(|source| MapAccessError::Open {
        name,
        dir: maps.display().to_string(),
        source,
    })
}

/// What has to be set, or removed, to come from one table to the other; removals first.
pub fn changes_in_order<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>)> {
    let removed = old.keys().filter(|key| !new.contains_key(key)).map(|key| (key, None));
    let set = new.iter().filter(|(key, value)| old.get(key) != Some(value)).map(|(key, value)| (key, Some(value)));
    removed.chain(set)
}

/// Makes an entry what it is to be; `None`: there is none.
pub(super) fn set<K: aya::Pod, V: aya::Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
    key: &K,
    value: Option<V>,
) -> Result<(), MapAccessError> {
    match value {
        Some(value) => map.insert(key, value, 0).map_err(|source| failed(name, "insert", source)),
        None => match map.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(source) => Err(failed(name, "remove", source)),
        },
    }
}

pub(super) fn failed(name: &'static str, operation: &'static str, source: MapError) -> MapAccessError {
    MapAccessError::Entry { name, operation, source }
}

/// The enrolled pods, as the kernel sees them.
pub(super) struct PodMap(HashMap<MapData, u64, PodRecord>);

impl PodMap {
    pub(super) fn open(maps: &Path) -> Result<Self, MapAccessError> {
        open(maps, map_names::PODS, Map::HashMap).map(Self)
    }

    /// Enrols a network namespace.
    pub(super) fn insert(&mut self, netns_cookie: u64, addresses: &[IpAddr]) -> Result<(), MapAccessError> {
        let record = record(addresses);
        self.0.insert(netns_cookie, record, 0).map_err(|source| Self::error("insert a pod", source))
    }

    /// Takes a namespace out; one that is not in is no error.
    pub(super) fn remove(&mut self, netns_cookie: u64) -> Result<(), MapAccessError> {
        match self.0.remove(&netns_cookie) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(source) => Err(Self::error("remove a pod", source)),
        }
    }

    /// Whether a network namespace is enrolled with these addresses.
    pub(super) fn holds(&self, netns_cookie: u64, addresses: &[IpAddr]) -> Result<bool, MapAccessError> {
        match self.0.get(&netns_cookie, 0) {
            Ok(found) => Ok(found == record(addresses)),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(source) => Err(Self::error("look for a pod", source)),
        }
    }

    /// Whether a network namespace is enrolled.
    pub(super) fn contains(&self, netns_cookie: u64) -> bool {
        self.0.get(&netns_cookie, 0).is_ok()
    }

    /// Cookies of every enrolled namespace.
    pub(super) fn cookies(&self) -> Vec<u64> {
        self.0.keys().filter_map(Result::ok).collect()
    }

    fn error(operation: &'static str, source: MapError) -> MapAccessError {
        MapAccessError::Entry { name: map_names::PODS, operation, source }
    }
}

fn record(addresses: &[IpAddr]) -> PodRecord {
    let first = |wanted: fn(&IpAddr) -> bool| {
        let found = addresses.iter().copied().find(wanted);
        found.map_or([0; 4], address::words)
    };
    PodRecord { v4_words_be: first(IpAddr::is_ipv4), v6_words_be: first(IpAddr::is_ipv6) }
}

/// Reads the kernel's counters.
pub struct CounterReader(PerCpuArray<MapData, u64>);

impl CounterReader {
    pub(super) fn open(maps: &Path) -> Result<Self, MapAccessError> {
        open(maps, map_names::COUNTERS, Map::PerCpuArray).map(Self)
    }

    /// The sum over all CPUs since the map was made.
    ///
    /// # Errors
    /// The map could not be read.
    pub fn read(&self, counter: Counter) -> Result<u64, MapAccessError> {
        let values = self.0.get(&(counter as u32), 0);
        values.map(|per_cpu| per_cpu.iter().sum()).map_err(|source| MapAccessError::Entry {
            name: map_names::COUNTERS,
            operation: "read a counter",
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_record_holds_one_address_of_each_family() {
        let addresses: Vec<IpAddr> = ["fd00::1", "10.0.0.1"].map(|it| it.parse().expect("an address")).into();
        let both = record(&addresses);
        assert_eq!(both.v4_words_be, address::words(addresses[1]));
        assert_eq!(both.v6_words_be, address::words(addresses[0]));
        assert_eq!(record(&addresses[1..]).v6_words_be, [0; 4]);
    }
}
