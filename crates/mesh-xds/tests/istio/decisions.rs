//! By whatever policies: a proxy that goes by what it is told decides as our nodes do, and after whatever changes it is told
//! what it would be told from the start.

use std::net::SocketAddr;

use mesh_core::policy::{Facts, Peer, authorize};
use mesh_core::{SpiffeId, TrustDomain};
use proptest::prelude::*;

use crate::cluster::object;
use crate::ztunnel::{Connection, allows};
use crate::{Control, Told};

fn identities() -> Vec<Option<SpiffeId>> {
    let accounts = [("shop", "sa0"), ("shop", "sa1"), ("bank", "sa1"), ("shop", "sa2")];
    let some = accounts.map(|(namespace, account)| SpiffeId::new(&TrustDomain::default(), namespace, account).ok());
    some.into_iter().chain([None]).collect()
}

/// Every pod, every client, some ports.
fn compare(control: &Control, told: &Told) -> Result<(), TestCaseError> {
    let snapshot = &control.config.snapshot;
    for workload in snapshot.workloads() {
        let uid = format!("Kubernetes//Pod/{}/{}", workload.namespace, workload.name);
        let theirs = &told.workloads[&uid];
        for identity in &identities() {
            let peer = identity.as_ref().map_or(Peer::Unproven, Peer::Certificate);
            for client in ["10.0.0.1", "10.0.0.3", "192.168.0.1", "fd00::1"].map(|client| client.parse().unwrap()) {
                for port in [8080, 8081, 9000, 1] {
                    let destination = SocketAddr::new(workload.addresses[0], port);
                    let ours = authorize(
                        snapshot,
                        workload,
                        &Facts { peer, client, forwarded: None, server: None, destination },
                    );
                    let connection = Connection { identity: identity.as_ref(), client, destination };
                    prop_assert_eq!(
                        allows(told, theirs, &connection),
                        ours.verdict.is_ok(),
                        "{:?} from {} to {}: {:?}; {:#?}",
                        identity,
                        client,
                        destination,
                        ours.verdict,
                        theirs
                    );
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn what_is_told_decides_alike_and_is_what_a_fresh_start_tells(
        rounds in prop::collection::vec((prop::collection::vec(object(), 1..12), any::<bool>()), 1..8),
    ) {
        let mut control = Control::new();
        let mut all = Vec::new();
        for (changes, is_read) in rounds {
            control.learn(&changes);
            all.extend(changes);
            // Some states nobody asks for.
            if is_read {
                compare(&control, &control.told())?;
            }
        }
        let told = control.told();
        compare(&control, &told)?;
        let mut fresh = Control::new();
        fresh.learn(&all);
        prop_assert_eq!(fresh.told(), told);
        prop_assert_eq!(fresh.versions().map(|version| version.digest), control.versions().map(|version| version.digest));
    }
}
