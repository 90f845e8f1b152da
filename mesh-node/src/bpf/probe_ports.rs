//! Where kubelet knocks at the node's pods: asked by the kernel where it cannot tell kubelet from the node's other processes.

use std::{collections::BTreeSet, path::Path};

use aya::maps::{HashMap, Map, MapData, MapError};
use mesh_abi::{ProbePort, map_names};

use super::maps::{MapAccessError, open};

/// The table of probe ports.
pub struct ProbePorts {
    map: HashMap<MapData, ProbePort, u32>,
    /// What it holds.
    known: BTreeSet<(u64, u16)>,
}

impl ProbePorts {
    /// Takes the table over from an earlier daemon.
    pub(super) fn open(maps: &Path) -> Result<Self, MapAccessError> {
        let map: HashMap<MapData, ProbePort, u32> = open(maps, map_names::PROBE_PORTS, Map::HashMap)?;
        let port = |key: ProbePort| u16::try_from(key.port).ok().map(|port| (key.netns_cookie, port));
        let known = map.keys().filter_map(Result::ok).filter_map(port).collect();
        Ok(Self { map, known })
    }

    /// Makes the table hold these ports, by the cookies of their pods' network namespaces, and no others.
    ///
    /// # Errors
    /// The map refused; what it lacks is refused to probes.
    pub fn set(&mut self, wanted: BTreeSet<(u64, u16)>) -> Result<(), MapAccessError> {
        let gone: Vec<_> = self.known.difference(&wanted).copied().collect();
        for (netns_cookie, port) in gone {
            match self.map.remove(&ProbePort::new(netns_cookie, port)) {
                Ok(()) | Err(MapError::KeyNotFound) => _ = self.known.remove(&(netns_cookie, port)),
                Err(source) => return Err(Self::error("remove a port", source)),
            }
        }
        for (netns_cookie, port) in wanted {
            if self.known.contains(&(netns_cookie, port)) {
                continue;
            }
            let inserted = self.map.insert(ProbePort::new(netns_cookie, port), 1, 0);
            inserted.map_err(|source| Self::error("insert a port", source))?;
            self.known.insert((netns_cookie, port));
        }
        Ok(())
    }

    fn error(operation: &'static str, source: MapError) -> MapAccessError {
        MapAccessError::Entry { name: map_names::PROBE_PORTS, operation, source }
    }
}
