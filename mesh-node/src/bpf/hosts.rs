//! The hosts that the kernel answers for, and the pods that it answers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use aya::maps::{HashMap, Map, MapData};
use mesh_abi::{AskerRecord, HostKey, HostRecord, dns::MAX_HOSTS, map_names};

use super::{
    address,
    maps::{MapAccessError, changes_in_order, open, set},
};

/// The tables by which the kernel answers questions to DNS.
pub struct HostMaps {
    hosts: HashMap<MapData, HostKey, HostRecord>,
    askers: HashMap<MapData, u64, AskerRecord>,
    /// What they hold, as far as it is known; none after something could not be written.
    known: Option<HostTables>,
}

/// What the kernel is to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTables {
    hosts: BTreeMap<HostKey, HostRecord>,
    askers: BTreeMap<u64, AskerRecord>,
    /// Hosts that found no room, or have no name of DNS.
    left_out: usize,
}

impl HostTables {
    /// Adds the addresses of a host for those of a scope ([`mesh_abi::HostKey::scope`]).
    pub fn add_host(&mut self, scope: u64, host: &str, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) {
        let key = HostKey::new(scope, host).filter(|_| self.hosts.len() < MAX_HOSTS);
        let Some(key) = key else {
            self.left_out += 1;
            return;
        };
        let v4_be = v4.map_or(0, |address| u32::from_ne_bytes(address.octets()));
        let v6_be = v6.map_or([0; 4], |address| address::words(address.into()));
        self.hosts.insert(key, HostRecord { v6_be, v4_be });
    }

    /// Adds a pod by its network namespace's cookie: whose hosts it is told of beside everybody's, and the addresses that it has.
    pub fn add_asker(&mut self, netns_cookie: u64, scope: u64, addresses: &[IpAddr]) {
        // Until its addresses are known it may have some of both families.
        let has = |ipv6| u32::from(addresses.is_empty() || addresses.iter().any(|address| address.is_ipv6() == ipv6));
        self.askers.insert(netns_cookie, AskerRecord { scope, has_v4: has(false), has_v6: has(true) });
    }

    /// Hosts that found no room, or have no name of DNS.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

impl HostMaps {
    /// Takes the tables over from an earlier daemon: what they hold stays until the first [`Self::set`].
    pub(super) fn open(maps: &Path) -> Result<Self, MapAccessError> {
        Ok(Self {
            hosts: open(maps, map_names::HOSTS, Map::HashMap)?,
            askers: open(maps, map_names::ASKERS, Map::HashMap)?,
            known: None,
        })
    }

    /// Makes the tables hold this and nothing else. A host that changes is never without an answer meanwhile.
    ///
    /// # Errors
    /// A map refused; it is all looked at again the next time.
    pub fn set(&mut self, wanted: HostTables) -> Result<(), MapAccessError> {
        let known = self.known.take();
        let known =
            known.unwrap_or_else(|| HostTables { hosts: all(&self.hosts), askers: all(&self.askers), left_out: 0 });
        // What a pod is told of is there before it is.
        for (key, host) in changes_in_order(&known.hosts, &wanted.hosts) {
            set(&mut self.hosts, map_names::HOSTS, key, host.copied())?;
        }
        for (netns_cookie, asker) in changes_in_order(&known.askers, &wanted.askers) {
            set(&mut self.askers, map_names::ASKERS, netns_cookie, asker.copied())?;
        }
        self.known = Some(wanted);
        Ok(())
    }
}

fn all<K: aya::Pod + Ord, V: aya::Pod>(map: &HashMap<MapData, K, V>) -> BTreeMap<K, V> {
    map.iter().filter_map(Result::ok).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_told_addresses_of_the_families_that_it_has_or_may_have() {
        let mut tables = HostTables::default();
        for (cookie, addresses, families) in [
            (1, &["10.0.0.1"][..], (1, 0)),
            (2, &["fd00::1"], (0, 1)),
            (3, &["10.0.0.2", "fd00::2"], (1, 1)),
            (4, &[], (1, 1)),
        ] {
            let addresses: Vec<IpAddr> = addresses.iter().map(|it| it.parse().expect("an address")).collect();
            tables.add_asker(cookie, 7, &addresses);
            let AskerRecord { has_v4, has_v6, .. } = tables.askers[&cookie];
            assert_eq!((has_v4, has_v6), families, "{addresses:?}");
        }
    }
}
