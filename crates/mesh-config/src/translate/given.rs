//! The addresses that the mesh gives hosts of ServiceEntries which have none, and why some are given none.

use std::collections::HashMap;
use std::net::IpAddr;

use mesh_core::hosts::{automatic, never_told};
use mesh_core::{Service, Snapshot};

/// Addresses that are tried for a host before it goes without: others have had the ones before.
const MAX_ATTEMPTS: u32 = 16;

/// Gives each of them that has no address some. `taken` are the addresses that ServiceEntries have, by who has them.
pub(super) fn give<'a>(
    services: impl Iterator<Item = &'a mut Service>,
    taken: &mut HashMap<IpAddr, String>,
    snapshot: &Snapshot,
) {
    for service in services.filter(|service| service.vips.is_empty() && why_not(service).is_none()) {
        let is_free = |address: IpAddr| {
            let is_clusters = snapshot.service_by_vip(address).is_some_and(|holder| holder.entry.is_none());
            !is_clusters && !taken.contains_key(&address) && snapshot.workload_by_address(address).is_none()
        };
        let mut all = (0..MAX_ATTEMPTS).map(|attempt| automatic(&service.hostname, attempt));
        let Some((v4, v6)) = all.find(|(v4, v6)| is_free((*v4).into()) && is_free((*v6).into())) else { continue };
        service.vips = vec![v4.into(), v6.into()];
        taken.extend(service.vips.iter().map(|vip| (*vip, service.hostname.to_string())));
    }
}

/// Why a host of a ServiceEntry that has no address is given none.
pub(super) fn why_not(service: &Service) -> Option<&'static str> {
    never_told(service, service.entry.as_deref()?)
}

/// Whether pods may be told of a ServiceEntry's host: names of the cluster's Services and pods are their namespaces', also where
/// something of a pod's search list comes after them.
pub(super) fn may_be_told(host: &str, namespace: &str, cluster_domain: &str) -> bool {
    let ends_label = |rest: &str| rest.is_empty() || rest.starts_with('.');
    let is_within =
        |domain: &str| host.match_indices(domain).any(|(place, _)| ends_label(&host[place + domain.len()..]));
    // As they are asked in full, and as pods ask them whose search list comes after.
    let domains = [format!(".svc.{cluster_domain}"), format!(".pod.{cluster_domain}")];
    let is_clusters = host.ends_with(".svc") || domains.iter().any(|domain| is_within(domain));
    !is_clusters || ["", &domains[0][4..]].iter().any(|rest| host.ends_with(&format!(".{namespace}.svc{rest}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_cluster_are_their_namespaces() {
        for (host, expected) in [
            ("api.example.com", true),
            ("cart.shop.svc.cluster.local", false),
            ("db-0.db.mine.svc.cluster.local", true),
            ("cart.shop.svc.cluster.local.shop.svc.cluster.local", false),
            ("cart.shop.svc.cluster.local.example.com", false),
            ("cart.shop.svc.cluster.localhost.example.com", true),
            ("mine.svc.cluster.local", false),
            ("cart.shop.svc", false),
            ("db.mine.svc", true),
            ("10-0-0-1.shop.pod.cluster.local", false),
            ("cart.shop.pod.example.com", true),
        ] {
            assert_eq!(may_be_told(host, "mine", "cluster.local"), expected, "{host}");
        }
    }
}
