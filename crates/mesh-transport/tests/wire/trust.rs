//! Whom to trust changes while tunnels live: those of a revoked certificate or a retired root end, all others go on.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_core::TrustDomain;
use mesh_transport::ca::rotation;
use mesh_transport::hbone::TunnelEnd;
use mesh_transport::{Carriers, CertificateAuthority, End, Limits, LocalAuthority, RejectReason};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::world::{Connection, World, identities_of, identity, run};

/// A world whose authority is a directory that is followed.
struct Followed {
    dir: TempDir,
    world: World,
}

impl Followed {
    async fn new(carriers: Carriers) -> Self {
        let (dir, now) = (tempfile::tempdir().expect("dir"), SystemTime::now());
        let authority = CertificateAuthority::generate(&TrustDomain::default(), now).expect("authority");
        authority.write(dir.path(), false).expect("written");
        let authority = Arc::new(LocalAuthority::open(dir.path(), now).expect("opened"));
        let identities = identities_of(authority.clone(), carriers);
        spawn_local(async move { authority.follow().await });
        let renewing = identities.clone();
        spawn_local(async move { renewing.run().await });
        let tls = identities.fetch(&identity("pay")).await.expect("identity");
        Self { dir, world: World::serving(Limits::default(), identities, tls).await }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn serial_of(&self, account: &str) -> String {
        let of = identity(account);
        let status = self.world.identities.certificates().into_iter().find(|status| status.identity == of);
        status.and_then(|status| status.serial).expect("a certificate")
    }

    fn revoke(&self, account: &str) {
        let authority = CertificateAuthority::load(self.path(), SystemTime::now()).expect("authority");
        authority.revoke(self.path(), &[self.serial_of(account)], SystemTime::now()).expect("revoked");
    }

    /// Waits until certificates are there whose trust bundle has so many roots.
    async fn roots(&self, count: usize) {
        let mut trust = self.world.identities.trust();
        trust.wait_for(|peers| peers.bundle().roots.len() == count).await.expect("an authority");
    }
}

async fn lives(connection: &mut Connection) {
    connection.client.write_all(b"ping").await.expect("written");
    let mut got = [0; 4];
    connection.server.read_exact(&mut got).await.expect("read");
}

#[test]
fn a_revoked_clients_tunnels_end_within_a_second_and_it_comes_back_with_a_new_certificate() {
    run(async |carriers| {
        let followed = Followed::new(carriers).await;
        let mut connection = followed.world.connect().await;
        lives(&mut connection).await;
        let old = followed.serial_of("cart");
        followed.revoke("cart");
        let ended = timeout(Duration::from_secs(1), connection.relay).await.expect("in time").expect("no panic");
        assert_eq!(ended.end, End::ResetByFar);
        let server = &followed.world.server;
        server.until(|node| !node.results.borrow().is_empty()).await;
        let result = server.results.borrow()[0].as_ref().expect_err("ended").to_string();
        assert!(result.contains("accepted no more") && result.contains("Revoked"), "{result}");
        // The same tunnel again: the node has renewed what was revoked.
        let mut connection = followed.world.connect().await;
        lives(&mut connection).await;
        assert_ne!(followed.serial_of("cart"), old);
    });
}

#[test]
fn tunnels_to_a_revoked_server_end_at_the_clients_side_and_say_why() {
    run(async |carriers| {
        let followed = Followed::new(carriers).await;
        let (tunnel, _server) = tokio::join!(followed.world.tunnel(), followed.world.accept());
        let tunnel = tunnel.expect("tunnel");
        let fate = tunnel.fate();
        followed.revoke("pay");
        timeout(Duration::from_secs(1), async {
            while fate.reason().is_none() {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("in time");
        assert!(
            matches!(fate.reason(), Some(TunnelEnd::Untrusted(error)) if error.reason() == RejectReason::CertificateRevoked)
        );
    });
}

#[test]
fn a_revoked_certificate_makes_no_new_tunnel() {
    run(async |carriers| {
        let followed = Followed::new(carriers).await;
        let shown = followed.world.identities.fetch(&identity("cart")).await.expect("identity");
        followed.revoke("cart");
        let mut trust = followed.world.identities.trust();
        trust.wait_for(|peers| !peers.bundle().crls.is_empty()).await.expect("an authority");
        let refused = followed.world.tunnel_as(&shown, followed.world.key(), followed.world.request()).await;
        refused.expect_err("refused");
        assert!(followed.world.server.seen.borrow().is_empty());
    });
}

#[test]
fn a_root_is_replaced_and_no_tunnel_breaks() {
    run(async |carriers| {
        let followed = Followed::new(carriers).await;
        let (now, domain) = (SystemTime::now(), TrustDomain::default());
        let mut before = followed.world.connect().await;
        rotation::add(followed.path(), &domain, now).expect("added");
        followed.roots(2).await;
        lives(&mut before).await;
        let old = followed.serial_of("cart");
        rotation::switch(followed.path(), now).expect("switched");
        // Renewed at once: a certificate's own half-life would be hours away.
        while followed.serial_of("cart") == old {
            sleep(Duration::from_millis(20)).await;
        }
        lives(&mut before).await;
        let mut after = followed.world.connect().await;
        lives(&mut after).await;
        assert_eq!(followed.world.dials(), 2, "the new certificate has a connection of its own");
    });
}
