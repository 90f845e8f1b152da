//! The kernel's tables for this node's pods, as the snapshot wants them, and the steps from one state to the next.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_abi::{DirectPair, direct::MAX_PAIRS, service::MAX_SERVICES};
use mesh_core::{
    Endpoint, Protocol, Service, ServicePort, Snapshot, Unwatched, Workload,
    direct::{DirectServer, kernel_candidates, kernel_may_pick, one_for_each_locality},
};

use crate::{
    bpf::{DirectMaps, KernelService, MapAccessError, NetnsCookies, Permission, changes_in_order},
    pods::Members,
};

/// What the kernel is to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    local: BTreeMap<IpAddr, u64>,
    pairs: BTreeMap<DirectPair, Permission>,
    services: BTreeMap<SocketAddr, KernelService>,
}

impl Tables {
    /// Tabulates a snapshot for these pods; whether requests are counted in what they say. What finds no room goes by the daemon.
    pub(super) fn of(snapshot: &Snapshot, members: &Members, watches: bool) -> Self {
        let mut tables = Self::of_addresses(members);
        tables.add_pairs(snapshot, members, watches);
        let clients = one_for_each_locality(members.values().map(|member| &**member));
        for service in snapshot.services() {
            tables.add_service(snapshot, &clients, service);
        }
        tables
    }

    /// Who has which address, and nothing that is permitted: that is all that kubelet's probes need.
    pub(super) fn of_addresses(members: &Members) -> Self {
        let of_pod = |(cookie, workload): (&u64, &Arc<Workload>)| {
            let addresses = workload.addresses.iter().map(|address| address.to_canonical());
            addresses.map(|address| (address, *cookie)).collect::<Vec<_>>()
        };
        Self { local: members.iter().flat_map(of_pod).collect(), ..Self::default() }
    }

    /// The same without one pod. Services are left: their endpoints are no pod's any more.
    pub(super) fn without(&self, cookie: u64) -> Self {
        let mut next = self.clone();
        next.local.retain(|_, known| *known != cookie);
        next.pairs.retain(|pair, _| pair.client_netns_cookie != cookie && pair.server_netns_cookie != cookie);
        next
    }

    /// Whether the kernel connects them.
    pub(super) fn permit(&self, NetnsCookies { client, server }: NetnsCookies, port: u16) -> bool {
        let exact = self.pairs.get(&DirectPair::new(client, server, port.into()));
        let any = || self.pairs.get(&DirectPair::new(client, server, DirectPair::ANY_PORT));
        exact.or_else(any).copied().is_some_and(Permission::is_direct)
    }

    fn add_pairs(&mut self, snapshot: &Snapshot, members: &Members, watches: bool) {
        for (server_cookie, server) in members {
            let ports = DirectServer::new(snapshot, server);
            let unwatched = if watches { &server.unwatched } else { &Unwatched::Everywhere };
            for (client_cookie, client) in members.iter().filter(|(cookie, _)| *cookie != server_cookie) {
                let direct = ports.ports_for(client);
                let entries = entries(direct.others, direct.exceptions, unwatched);
                // All of a pair's entries or none: without its exceptions it would be allowed too much.
                if self.pairs.len() + entries.len() > MAX_PAIRS {
                    continue;
                }
                for (port, permission) in entries {
                    self.pairs.insert(DirectPair::new(*client_cookie, *server_cookie, port), permission);
                }
            }
        }
    }

    fn add_service(&mut self, snapshot: &Snapshot, clients: &[&Workload], service: &Service) {
        let mut may_pick = None;
        let tcp = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        for (port, vip) in tcp.flat_map(|port| service.vips.iter().map(move |vip| (port, *vip))) {
            let vip = vip.to_canonical();
            if !self.has_local(port, vip) {
                continue;
            }
            let may_pick = *may_pick.get_or_insert_with(|| kernel_may_pick(snapshot, service));
            if !may_pick || self.services.len() >= MAX_SERVICES {
                continue;
            }
            let candidates = kernel_candidates(snapshot, clients, (service, port), vip.is_ipv6());
            if let Some(entry) = candidates.and_then(|candidates| self.kernel_service(&candidates)) {
                self.services.insert(SocketAddr::new(vip, port.port), entry);
            }
        }
    }

    fn has_local(&self, port: &ServicePort, vip: IpAddr) -> bool {
        let of_family = port.endpoints.iter().filter(|endpoint| endpoint.address.is_ipv4() == vip.is_ipv4());
        of_family.map(|endpoint| endpoint.address.ip()).any(|ip| self.local.contains_key(&ip))
    }

    /// `None` without an endpoint on this node.
    fn kernel_service(&self, candidates: &[&Endpoint]) -> Option<KernelService> {
        let numbered = (0u32..).zip(candidates.iter().map(|endpoint| endpoint.address));
        let local: Vec<_> = numbered.filter(|(_, address)| self.local.contains_key(&address.ip())).collect();
        let endpoints = u32::try_from(candidates.len()).ok()?;
        (!local.is_empty()).then_some(KernelService { endpoints, local })
    }

    /// Changes the kernel's tables from these to `next`: what is no longer permitted goes first.
    pub(super) fn change_to(&self, next: &Self, maps: &mut DirectMaps) -> Result<(), MapAccessError> {
        let changes = changes_in_order(&self.pairs, &next.pairs).map(|(pair, next)| (pair, next.copied()));
        let (permitting, forbidding): (Vec<_>, Vec<_>) = changes.partition(|(pair, next)| match next {
            Some(permission) => permission.is_direct(),
            // Without an entry of its own a port is as the others: that may permit it.
            None => self.pairs.get(*pair) == Some(&Permission::ByDaemon),
        });
        // An entry that forbids comes before one goes that permitted.
        let (entered, removed): (Vec<_>, Vec<_>) = forbidding.into_iter().partition(|(_, next)| next.is_some());
        for (pair, next) in entered.into_iter().chain(removed) {
            maps.set_pair(*pair, next)?;
        }
        for (ip, cookie) in changes_in_order(&self.local, &next.local) {
            maps.set_local(*ip, cookie.copied())?;
        }
        for (vip, service) in changes_in_order(&self.services, &next.services) {
            maps.set_service(*vip, service)?;
        }
        for (pair, next) in permitting {
            maps.set_pair(*pair, next)?;
        }
        Ok(())
    }

    /// Whether `next` lacks a permission that these give.
    pub(super) fn permit_more_than(&self, next: &Self) -> bool {
        self.pairs.keys().chain(next.pairs.keys()).any(|pair| {
            let of = |tables: &Self| match u16::try_from(pair.port) {
                Ok(port) => {
                    let (client, server) = (pair.client_netns_cookie, pair.server_netns_cookie);
                    tables.permit(NetnsCookies { client, server }, port)
                }
                Err(_) => false,
            };
            of(self) && !of(next)
        })
    }
}

/// One pair's entries: whether its ports are direct but for the exceptions, and at which what they say is not watched.
fn entries(others: bool, exceptions: BTreeMap<u16, bool>, unwatched: &Unwatched) -> Vec<(u32, Permission)> {
    let of = |is_direct: bool, is_unwatched: bool| match (is_direct, is_unwatched) {
        (false, _) => Permission::ByDaemon,
        (true, true) => Permission::Direct,
        (true, false) => Permission::Watched,
    };
    let unwatched_ports = match unwatched {
        Unwatched::At(ports) if others => &ports[..],
        _ => &[],
    };
    let mut ports: BTreeMap<u16, bool> = unwatched_ports.iter().map(|port| (*port, true)).collect();
    ports.extend(exceptions);
    let of_ports = ports.into_iter().map(|(port, is_direct)| (port.into(), of(is_direct, unwatched.covers(port))));
    let of_others = others.then(|| (DirectPair::ANY_PORT, of(true, *unwatched == Unwatched::Everywhere)));
    of_ports.chain(of_others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: u64 = 1;
    const SERVER: u64 = 2;
    const FORTH: NetnsCookies = NetnsCookies { client: CLIENT, server: SERVER };
    const BACK: NetnsCookies = NetnsCookies { client: SERVER, server: CLIENT };

    fn tables(entries: &[(u32, bool)]) -> Tables {
        let of = |is_direct: bool| if is_direct { Permission::Watched } else { Permission::ByDaemon };
        let pairs = entries.iter().map(|(port, is_direct)| (DirectPair::new(CLIENT, SERVER, *port), of(*is_direct)));
        Tables { pairs: pairs.collect(), ..Tables::default() }
    }

    #[test]
    fn a_port_of_its_own_outweighs_all_others() {
        let some = tables(&[(DirectPair::ANY_PORT, true), (80, false)]);
        assert!(some.permit(FORTH, 81));
        assert!(!some.permit(FORTH, 80));
        assert!(!some.permit(BACK, 81), "not the other way");
        assert!(!some.without(SERVER).permit(FORTH, 81));
    }

    #[test]
    fn ports_that_are_not_watched_have_entries_where_the_others_are() {
        use Permission::{ByDaemon, Direct, Watched};
        const ANY: u32 = DirectPair::ANY_PORT;
        let exceptions = || BTreeMap::from([(80, false), (6379, true)]);
        let some = Unwatched::At([5432, 6379].into());
        assert_eq!(
            entries(true, exceptions(), &some),
            [(80, ByDaemon), (5432, Direct), (6379, Direct), (ANY, Watched)]
        );
        assert_eq!(entries(false, exceptions(), &some), [(80, ByDaemon), (6379, Direct)]);
        assert_eq!(entries(true, BTreeMap::new(), &Unwatched::Everywhere), [(ANY, Direct)]);
        assert_eq!(entries(true, BTreeMap::new(), &Unwatched::Nowhere), [(ANY, Watched)]);
        assert_eq!(entries(false, BTreeMap::new(), &some), []);
    }

    #[test]
    fn a_permission_that_is_taken_away_is_noticed() {
        let all = tables(&[(DirectPair::ANY_PORT, true)]);
        for less in [tables(&[]), tables(&[(DirectPair::ANY_PORT, true), (80, false)]), tables(&[(80, true)])] {
            assert!(all.permit_more_than(&less), "{less:?}");
            assert!(!less.permit_more_than(&all), "{less:?}");
        }
    }

    #[test]
    fn what_goes_is_removed_before_what_comes_is_set() {
        let (old, new) =
            (BTreeMap::from([(1, 'a'), (2, 'b'), (3, 'c')]), BTreeMap::from([(2, 'B'), (3, 'c'), (4, 'd')]));
        let steps: Vec<_> = changes_in_order(&old, &new).collect();
        assert_eq!(steps, [(&1, None), (&2, Some(&'B')), (&4, Some(&'d'))]);
    }
}
