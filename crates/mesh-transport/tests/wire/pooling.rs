//! Connections are shared, replaced when dead, drained when asked, and gone with their pod.

use http::StatusCode;
use mesh_core::WorkloadUid;
use mesh_transport::hbone::{ConnectError, PoolKey, Tunnel};
use mesh_transport::{Carriers, CertificateAuthority, End, Limits, RejectReason, RelayCounters, relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;

use crate::world::{Connection, Policy, World, identities, identity, is_reset, run, run_once, socket_pair};

#[test]
fn many_tunnels_at_once_share_one_dial_where_they_share_a_connection() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let mut tunnels = tokio::task::JoinSet::new();
        let world = std::rc::Rc::new(world);
        for _ in 0..50 {
            let world = world.clone();
            tunnels.spawn_local(async move { world.tunnel().await.expect("tunnel") });
        }
        let open = tunnels.join_all().await;
        // A direct tunnel has its connection to itself.
        let dials = if carriers == Carriers::H2 { 1 } else { 50 };
        assert_eq!((open.len(), world.dials()), (50, dials));
    });
}

#[test]
fn a_full_connection_gets_a_sibling() {
    run_once(async || {
        let world = World::with(Carriers::H2, Limits { streams_per_connection: 2, ..Limits::default() }).await;
        let mut open = Vec::new();
        for _ in 0..5 {
            open.push(world.tunnel().await.expect("tunnel"));
        }
        assert_eq!(world.dials(), 3);
    });
}

#[test]
fn beyond_the_bound_on_direct_tunnels_those_at_once_share_a_connection() {
    run_once(async || {
        let limits = Limits { direct_per_destination: 4, ..Limits::default() };
        let world = std::rc::Rc::new(World::with(Carriers::DirectOrH2, limits).await);
        let mut tunnels = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let world = world.clone();
            tunnels.spawn_local(async move { world.tunnel().await.expect("tunnel") });
        }
        let open = tunnels.join_all().await;
        let direct = open.iter().filter(|tunnel| matches!(tunnel, Tunnel::Direct(_))).count();
        assert_eq!((open.len(), direct, world.dials()), (50, 4, 5));
    });
}

#[test]
fn a_direct_tunnel_that_ended_makes_room_for_the_next() {
    run_once(async || {
        let world = World::with(Carriers::DirectOrH2, Limits { direct_per_destination: 1, ..Limits::default() }).await;
        let first = world.connect().await;
        let shared = [world.tunnel().await.expect("second"), world.tunnel().await.expect("third")];
        assert!(shared.iter().all(|tunnel| matches!(tunnel, Tunnel::H2(_))), "{shared:?}");
        finish(first).await;
        // Over the connection that the first one left, though HTTP/2 has room.
        assert!(matches!(world.tunnel().await.expect("fourth"), Tunnel::Direct(_)));
        assert_eq!(world.dials(), 2);
        drop(world.tunnel().await.expect("over HTTP/2"));
    });
}

#[test]
fn a_direct_tunnel_that_was_dropped_makes_room_for_the_next() {
    run_once(async || {
        let world = World::with(Carriers::DirectOrH2, Limits { direct_per_destination: 1, ..Limits::default() }).await;
        let first = world.tunnel().await.expect("first");
        assert!(matches!(world.tunnel().await.expect("second"), Tunnel::H2(_)));
        drop(first);
        assert!(matches!(world.tunnel().await.expect("third"), Tunnel::Direct(_)));
        assert_eq!(world.dials(), 3);
    });
}

#[test]
fn another_source_never_shares_a_connection() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let _one = world.tunnel().await.expect("tunnel");
        let other = PoolKey { source: WorkloadUid::from("uid-cart-2"), ..world.key() };
        let _two = world.tunnel_with(other, world.request()).await.expect("tunnel");
        assert_eq!(world.dials(), 2);
    });
}

#[test]
fn a_dead_connection_is_replaced_without_the_caller_noticing() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        finish(world.connect().await).await;
        world.server.connections.borrow()[0].abort();
        world.tunnel().await.expect("second");
        assert_eq!(world.dials(), 2);
    });
}

#[test]
fn a_drained_server_finishes_open_tunnels_and_gets_no_new_ones() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let mut connection = world.connect().await;
        world.server.drain.send_replace(true);
        connection.client.write_all(b"still there").await.expect("write");
        let mut got = [0; 11];
        connection.server.read_exact(&mut got).await.expect("read");
        connection.client.shutdown().await.expect("finish");
        connection.server.shutdown().await.expect("finish");
        world.server.until(|node| node.results.borrow().len() == 1).await;
        assert!(world.server.results.borrow()[0].is_ok());
    });
}

#[test]
fn when_a_pod_leaves_its_tunnels_are_reset_and_others_stay() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let mut leaving = world.connect().await;
        let other = PoolKey { source: WorkloadUid::from("uid-cart-2"), ..world.key() };
        let (other, mut backend) = tokio::join!(world.tunnel_with(other, world.request()), world.accept());
        let (mut client, app) = socket_pair().await;
        let tunnel = other.expect("tunnel");
        spawn_local(async move { relay(app, tunnel, &RelayCounters::default()).await });
        world.pool.close_source(&WorkloadUid::from("uid-cart"));
        assert!(is_reset(&leaving.client.read(&mut [0; 8]).await));
        client.write_all(b"x").await.expect("write");
        assert_eq!(backend.read_u8().await.expect("the other pod's tunnel stays"), b'x');
    });
}

#[test]
fn a_refusal_carries_its_status_and_leaves_the_connection_usable() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        for status in [StatusCode::UNAUTHORIZED, StatusCode::SERVICE_UNAVAILABLE, StatusCode::BAD_REQUEST] {
            world.server.policy.set(Policy::Refuse(status));
            assert_eq!(world.tunnel().await.expect_err("refused").status(), Some(status));
        }
        world.server.policy.set(Policy::Connect);
        world.tunnel().await.expect("tunnel");
        assert_eq!(world.dials(), 1);
    });
}

#[test]
fn an_application_that_is_not_there_is_503() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let closed = crate::world::listen().await.local_addr().expect("address");
        let mut request = world.request();
        request.authority = closed.into();
        let error = world.tunnel_with(world.key(), request).await.expect_err("refused");
        assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    });
}

#[test]
fn a_server_of_another_identity_is_not_talked_to() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let key = PoolKey { expected: identity("order"), ..world.key() };
        let error = world.tunnel_with(key, world.request()).await.expect_err("refused");
        assert_eq!(error.reason(), Some(RejectReason::IdentityUnexpected), "{error}");
        assert!(error.to_string().contains("sa/pay"), "{error}");
        assert!(world.server.seen.borrow().is_empty());
    });
}

#[test]
fn a_peer_that_does_not_listen_is_a_dial_error_for_all_who_wait() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let peer = crate::world::listen().await.local_addr().expect("address");
        let key = PoolKey { peer, ..world.key() };
        let (a, b) =
            tokio::join!(world.tunnel_with(key.clone(), world.request()), world.tunnel_with(key, world.request()));
        for error in [a.expect_err("refused"), b.expect_err("refused")] {
            assert!(matches!(error, ConnectError::Dial { .. }), "{error}");
        }
        assert_eq!((world.dials(), world.pool.connections()), (1, 0));
    });
}

#[test]
fn an_idle_connection_is_closed_and_forgotten() {
    run(async |carriers| {
        let limits = Limits { idle_timeout: std::time::Duration::from_millis(40), ..Limits::default() };
        let world = World::with(carriers, limits).await;
        finish(world.connect().await).await;
        assert_eq!(world.pool.connections(), 1);
        world.server.until(|node| node.results.borrow().len() == 1).await;
        while world.pool.connections() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

/// Ends a connection in order, so that what carried it is free again.
async fn finish(mut connection: Connection) {
    connection.client.shutdown().await.expect("finish");
    connection.server.shutdown().await.expect("finish");
    assert_eq!(connection.relay.await.expect("relay").end, End::Closed);
}

#[test]
fn one_connection_after_another_needs_one_handshake() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        for round in 0..20 {
            let mut connection = world.connect().await;
            connection.client.write_all(&[round; 1000]).await.expect("write");
            let mut got = [0; 1000];
            connection.server.read_exact(&mut got).await.expect("read");
            assert_eq!(got, [round; 1000]);
            finish(connection).await;
        }
        assert_eq!(world.dials(), 1);
    });
}

#[test]
fn a_connection_that_was_reset_is_not_used_again() {
    run_once(async || {
        let world = World::new(Carriers::DirectOrH2).await;
        let connection = world.connect().await;
        crate::world::reset(connection.client);
        connection.relay.await.expect("relay");
        finish(world.connect().await).await;
        assert_eq!(world.dials(), 2);
    });
}

#[test]
fn nodes_agree_on_http_2_when_one_of_them_has_nothing_else() {
    for (ours, theirs) in [(Carriers::H2, Carriers::DirectOrH2), (Carriers::DirectOrH2, Carriers::H2)] {
        run_once(async || {
            let domain = mesh_core::TrustDomain::default();
            let dir = tempfile::tempdir().expect("dir");
            let now = std::time::SystemTime::now();
            CertificateAuthority::generate(&domain, now).and_then(|ca| ca.write(dir.path(), false)).expect("ca");
            let side = |carriers| identities(CertificateAuthority::load(dir.path(), now).expect("ca"), carriers);
            let server = side(theirs).fetch(&identity("pay")).await.expect("identity");
            let world = World::serving(Limits::default(), side(ours), server).await;
            assert!(matches!(world.tunnel().await.expect("tunnel"), Tunnel::H2(_)));
        });
    }
}

#[test]
fn a_draining_server_serves_the_one_request_that_a_new_connection_was_made_for() {
    run_once(async || {
        let world = World::new(Carriers::DirectOrH2).await;
        world.server.drain.send_replace(true);
        finish(world.connect().await).await;
        // After that it closes: the next tunnel needs another connection.
        world.server.until(|server| server.results.borrow().len() == 1).await;
        world.tunnel().await.expect("a second tunnel");
        assert_eq!(world.dials(), 2);
    });
}
