//! Connections are shared, replaced when dead, drained when asked, and gone with their pod.

use http::StatusCode;
use mesh_core::WorkloadUid;
use mesh_transport::hbone::{ConnectError, PoolKey};
use mesh_transport::{Limits, RejectReason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{Policy, World, identity, is_reset, run};

#[test]
fn many_tunnels_at_once_share_one_dial() {
    run(async || {
        let world = World::new().await;
        let mut tunnels = tokio::task::JoinSet::new();
        let world = std::rc::Rc::new(world);
        for _ in 0..50 {
            let world = world.clone();
            tunnels.spawn_local(async move { world.tunnel().await.expect("tunnel") });
        }
        let open = tunnels.join_all().await;
        assert_eq!((open.len(), world.dials(), world.pool.connections()), (50, 1, 1));
    });
}

#[test]
fn a_full_connection_gets_a_sibling() {
    run(async || {
        let world = World::with(Limits { streams_per_connection: 2, ..Limits::default() }).await;
        let mut open = Vec::new();
        for _ in 0..5 {
            open.push(world.tunnel().await.expect("tunnel"));
        }
        assert_eq!(world.dials(), 3);
    });
}

#[test]
fn another_source_never_shares_a_connection() {
    run(async || {
        let world = World::new().await;
        let _one = world.tunnel().await.expect("tunnel");
        let other = PoolKey { source: WorkloadUid::from("uid-cart-2"), ..world.key() };
        let _two = world.tunnel_with(other, world.request()).await.expect("tunnel");
        assert_eq!(world.dials(), 2);
    });
}

#[test]
fn a_dead_connection_is_replaced_without_the_caller_noticing() {
    run(async || {
        let world = World::new().await;
        drop(world.tunnel().await.expect("first"));
        world.server.connections.borrow()[0].abort();
        world.tunnel().await.expect("second");
        assert_eq!(world.dials(), 2);
    });
}

#[test]
fn a_drained_server_finishes_open_tunnels_and_gets_no_new_ones() {
    run(async || {
        let world = World::new().await;
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
    run(async || {
        let world = World::new().await;
        let mut leaving = world.connect().await;
        let other = PoolKey { source: WorkloadUid::from("uid-cart-2"), ..world.key() };
        let _other = world.tunnel_with(other, world.request()).await.expect("tunnel");
        world.pool.close_source(&WorkloadUid::from("uid-cart"));
        assert!(is_reset(&leaving.client.read(&mut [0; 8]).await));
        assert_eq!(world.pool.connections(), 1);
    });
}

#[test]
fn a_refusal_carries_its_status_and_leaves_the_connection_usable() {
    run(async || {
        let world = World::new().await;
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
    run(async || {
        let world = World::new().await;
        let closed = crate::world::listen().await.local_addr().expect("address");
        let mut request = world.request();
        request.authority = closed;
        let error = world.tunnel_with(world.key(), request).await.expect_err("refused");
        assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    });
}

#[test]
fn a_server_of_another_identity_is_not_talked_to() {
    run(async || {
        let world = World::new().await;
        let key = PoolKey { expected: identity("order"), ..world.key() };
        let error = world.tunnel_with(key, world.request()).await.expect_err("refused");
        assert_eq!(error.reason(), Some(RejectReason::IdentityUnexpected), "{error}");
        assert!(error.to_string().contains("sa/pay"), "{error}");
        assert!(world.server.seen.borrow().is_empty());
    });
}

#[test]
fn a_peer_that_does_not_listen_is_a_dial_error_for_all_who_wait() {
    run(async || {
        let world = World::new().await;
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
    run(async || {
        let limits = Limits { idle_timeout: std::time::Duration::from_millis(40), ..Limits::default() };
        let world = World::with(limits).await;
        drop(world.tunnel().await.expect("tunnel"));
        world.server.until(|node| node.results.borrow().len() == 1).await;
        while world.pool.connections() > 0 {
            tokio::task::yield_now().await;
        }
    });
}
