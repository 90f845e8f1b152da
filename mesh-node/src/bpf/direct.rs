//! The tables by which the kernel connects pods of this node, and what it says of such connections.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData};
use mesh_abi::{
    Attestation, DirectKey, DirectPair, ServiceEndpoint, ServiceRecord, Setting, SockAddress,
    direct::{BY_DAEMON, DIRECT, PROBE, WATCHED},
    map_names,
    service::LISTED_ENDPOINTS,
};

use super::{
    address,
    maps::{MapAccessError, failed, open, set},
    settings::Settings,
};

/// A connection between two pods that the kernel has made, or is making, and whose client's socket lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attested {
    /// The client's end.
    pub client: SocketAddr,
    /// The server's end.
    pub server: SocketAddr,
    /// What the client asked for: the server's end, or a Service's address.
    pub asked: SocketAddr,
    /// The connection's name.
    pub id: DirectId,
    /// The pods.
    pub netns_cookies: NetnsCookies,
}

/// Two pods, one of which connects to the other, by their network namespaces' cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetnsCookies {
    /// The client's.
    pub client: u64,
    /// The server's.
    pub server: u64,
}

/// Names a direct connection: the client's socket may be used for another one later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirectId {
    /// The client's socket cookie.
    pub cookie: u64,
    /// The initial sequence number of its SYN.
    pub isn: u32,
}

/// Who connects a pair of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// The daemon, if policy lets it.
    ByDaemon,
    /// The kernel.
    Direct,
    /// The kernel, which shows what they say.
    Watched,
}

impl Permission {
    /// Whether the kernel connects them.
    #[must_use]
    pub const fn is_direct(self) -> bool {
        !matches!(self, Self::ByDaemon)
    }
}

/// A Service's address and port, as far as the kernel picks among its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelService {
    /// Ready endpoints of the address's family on all nodes.
    pub endpoints: u32,
    /// Those on this node with their places among all; no more than the kernel's record holds are used.
    pub local: Vec<(u32, SocketAddr)>,
}

/// The kernel's tables for direct connections.
pub struct DirectMaps {
    local: HashMap<MapData, [u32; 4], u64>,
    pairs: HashMap<MapData, DirectPair, u32>,
    services: HashMap<MapData, SockAddress, ServiceRecord>,
    attestations: HashMap<MapData, DirectKey, Attestation>,
    settings: Settings,
}

impl DirectMaps {
    /// Opens the pinned maps in `maps`.
    ///
    /// # Errors
    /// A map is not there or has another layout.
    pub fn open(maps: &Path) -> Result<Self, MapAccessError> {
        Ok(Self {
            local: open(maps, map_names::LOCAL, Map::HashMap)?,
            pairs: open(maps, map_names::DIRECT, Map::HashMap)?,
            services: open(maps, map_names::SERVICES, Map::HashMap)?,
            attestations: open(maps, map_names::ATTESTATIONS, Map::HashMap)?,
            settings: Settings::open(maps)?,
        })
    }

    /// Takes out everything that an earlier daemon left. New connections go by the daemon until more is put in.
    ///
    /// # Errors
    /// An entry could not be removed.
    pub fn clear(&mut self) -> Result<(), MapAccessError> {
        clear(&mut self.pairs, map_names::DIRECT)?;
        clear(&mut self.services, map_names::SERVICES)?;
        clear(&mut self.local, map_names::LOCAL)
    }

    /// Says whose namespace has `ip`; `None`: no enrolled pod's.
    ///
    /// # Errors
    /// The map refused.
    pub fn set_local(&mut self, ip: IpAddr, netns_cookie: Option<u64>) -> Result<(), MapAccessError> {
        set(&mut self.local, map_names::LOCAL, &address::words(ip), netns_cookie)
    }

    /// Says who connects a pair of pods at a port; `None`: as at its other ports, and if that is not said either, the daemon.
    ///
    /// # Errors
    /// The map refused.
    pub fn set_pair(&mut self, pair: DirectPair, permission: Option<Permission>) -> Result<(), MapAccessError> {
        let verdict = permission.map(|permission| match permission {
            Permission::ByDaemon => BY_DAEMON,
            Permission::Direct => DIRECT,
            Permission::Watched => WATCHED,
        });
        set(&mut self.pairs, map_names::DIRECT, &pair, verdict)
    }

    /// Says among which endpoints the kernel picks; `None`: the daemon picks.
    ///
    /// # Errors
    /// The map refused.
    pub fn set_service(&mut self, vip: SocketAddr, service: Option<&KernelService>) -> Result<(), MapAccessError> {
        set(&mut self.services, map_names::SERVICES, &address::to_map(vip), service.map(service_record))
    }

    /// Lets direct connections begin for so long.
    ///
    /// # Errors
    /// The map refused.
    pub fn renew_lease(&mut self, lease: Duration) -> Result<(), MapAccessError> {
        let until = u64::try_from((now() + lease).as_nanos()).unwrap_or(u64::MAX);
        self.settings.set(Setting::DirectLease, until)
    }

    /// Every direct connection whose client's socket lives.
    ///
    /// # Errors
    /// The map could not be read.
    pub fn attested(&self) -> Result<Vec<Attested>, MapAccessError> {
        let mut found = Vec::new();
        for entry in self.attestations.iter() {
            let (key, attestation) = entry.map_err(|source| failed(map_names::ATTESTATIONS, "read", source))?;
            if attestation.kind != PROBE {
                found.push(attested(key, attestation));
            }
        }
        Ok(found)
    }

    /// Takes a connection's attestation away: its handshake can no longer be completed.
    ///
    /// # Errors
    /// The map refused.
    pub fn forget(&mut self, connection: &Attested) -> Result<(), MapAccessError> {
        let key = DirectKey { client: address::to_map(connection.client), server: address::to_map(connection.server) };
        set(&mut self.attestations, map_names::ATTESTATIONS, &key, None)
    }
}

fn attested(key: DirectKey, attestation: Attestation) -> Attested {
    Attested {
        client: address::from_map(key.client),
        server: address::from_map(key.server),
        asked: address::from_map(attestation.asked),
        id: DirectId { cookie: attestation.cookie, isn: attestation.isn },
        netns_cookies: NetnsCookies {
            client: attestation.client_netns_cookie,
            server: attestation.server_netns_cookie,
        },
    }
}

fn service_record(service: &KernelService) -> ServiceRecord {
    let mut record = ServiceRecord { endpoints: service.endpoints, ..ServiceRecord::default() };
    for (place, (index, endpoint)) in record.local.iter_mut().zip(&service.local) {
        *place = ServiceEndpoint { index: *index, address: address::to_map(*endpoint) };
    }
    record.listed = service.local.len().min(LISTED_ENDPOINTS) as u32;
    record
}

fn clear<K: aya::Pod, V: aya::Pod>(map: &mut HashMap<MapData, K, V>, name: &'static str) -> Result<(), MapAccessError> {
    let keys: Vec<K> = map.keys().filter_map(Result::ok).collect();
    keys.iter().try_for_each(|key| set(map, name, key, None))
}

/// The kernel's clock for events and leases (`CLOCK_MONOTONIC`).
pub fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
