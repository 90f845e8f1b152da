//! How connections end: a FIN stays a FIN, a reset a reset, and one side's end does not wait for the other's.

use mesh_transport::{End, RelayCounters, relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;

use crate::world::{Connection, World, is_reset, reset, run, run_once, socket_pair};

const LARGE: usize = 3_000_000;

#[test]
fn after_the_client_half_closes_the_server_may_go_on_sending() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let Connection { mut client, mut server, relay, .. } = world.connect().await;
        client.write_all(b"question").await.expect("write");
        client.shutdown().await.expect("half-close");
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.expect("read");
        assert_eq!(question, b"question");
        let mut answer = Vec::new();
        let (sent, got) = tokio::join!(
            async {
                server.write_all(&vec![7; LARGE]).await?;
                server.shutdown().await
            },
            client.read_to_end(&mut answer)
        );
        sent.expect("the server still sends");
        assert_eq!(got.expect("the client still reads"), LARGE);
        assert_eq!(relay.await.expect("relay").end, End::Closed);
    });
}

#[test]
fn after_the_server_half_closes_the_client_may_go_on_sending() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let Connection { mut client, mut server, relay, .. } = world.connect().await;
        server.shutdown().await.expect("half-close");
        assert_eq!(client.read(&mut [0; 8]).await.expect("end"), 0);
        let mut got = Vec::new();
        let (sent, read) = tokio::join!(
            async {
                client.write_all(&vec![7; LARGE]).await?;
                client.shutdown().await
            },
            server.read_to_end(&mut got)
        );
        sent.expect("the client still sends");
        assert_eq!(read.expect("the server still reads"), LARGE);
        assert_eq!(relay.await.expect("relay").end, End::Closed);
    });
}

#[test]
fn a_clients_reset_reaches_the_server_as_a_reset() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let Connection { mut client, mut server, relay, .. } = world.connect().await;
        client.write_all(b"x").await.expect("write");
        server.read_u8().await.expect("read");
        reset(client);
        assert!(is_reset(&server.read(&mut [0; 8]).await));
        assert_eq!(relay.await.expect("relay").end, End::ResetByApp);
    });
}

#[test]
fn a_servers_reset_reaches_the_client_as_a_reset() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let Connection { mut client, mut server, relay, .. } = world.connect().await;
        client.write_all(b"x").await.expect("write");
        server.read_u8().await.expect("read");
        reset(server);
        assert!(is_reset(&client.read(&mut [0; 8]).await));
        assert_eq!(relay.await.expect("relay").end, End::ResetByFar);
        world.server.until(|node| node.outcomes.borrow().len() == 1).await;
        assert_eq!(world.server.outcomes.borrow()[0].end, End::ResetByApp);
    });
}

#[test]
fn a_reset_after_a_half_close_is_still_a_reset() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let Connection { mut client, mut server, relay, .. } = world.connect().await;
        client.shutdown().await.expect("half-close");
        assert_eq!(server.read(&mut [0; 8]).await.expect("end"), 0);
        reset(client);
        assert_eq!(relay.await.expect("relay").end, End::ResetByApp);
        // The server has read an end already; its next write finds out.
        while server.write_all(&[0; 1000]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_servers_reset_after_its_half_close_reaches_the_client() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let Connection { mut client, mut server, relay, .. } = world.connect().await;
        server.shutdown().await.expect("half-close");
        assert_eq!(client.read(&mut [0; 8]).await.expect("end"), 0);
        reset(server);
        assert_eq!(relay.await.expect("relay").end, End::ResetByFar);
        while client.write_all(&[0; 1000]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_reset_is_noticed_while_the_other_side_does_not_read() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let Connection { mut client, server, relay, counters } = world.connect().await;
        // Fills everything up to the server, which never reads.
        let filler = async { client.write_all(&vec![0; 256 << 20]).await };
        let full = async {
            let mut last = 0;
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                let now = counters.sent.load(std::sync::atomic::Ordering::Relaxed);
                if now > 0 && now == last {
                    return;
                }
                last = now;
            }
        };
        tokio::select! {
            result = filler => panic!("nothing stopped the writer: {result:?}"),
            () = full => {}
        }
        reset(client);
        assert_eq!(relay.await.expect("relay").end, End::ResetByApp);
        world.server.until(|node| node.outcomes.borrow().len() == 1).await;
        assert_eq!(world.server.outcomes.borrow()[0].end, End::ResetByFar);
        drop(server);
    });
}

#[test]
fn a_tunnel_connection_that_breaks_resets_the_client() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let Connection { mut client, relay, .. } = world.connect().await;
        world.server.connections.borrow()[0].abort();
        assert!(is_reset(&client.read(&mut [0; 8]).await));
        assert_eq!(relay.await.expect("relay").end, End::ResetByFar);
    });
}

#[test]
fn plain_sockets_are_relayed_with_the_same_endings() {
    run_once(async || {
        let (mut client, app) = socket_pair().await;
        let (far, mut server) = socket_pair().await;
        let task = spawn_local(async move { relay(app, far, &RelayCounters::default()).await });
        client.write_all(b"question").await.expect("write");
        client.shutdown().await.expect("half-close");
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.expect("read");
        assert_eq!(question, b"question");
        server.write_all(b"answer").await.expect("write");
        let mut answer = [0; 6];
        client.read_exact(&mut answer).await.expect("read");
        reset(server);
        let outcome = task.await.expect("relay");
        assert_eq!((outcome.sent, outcome.received, outcome.end), (8, 6, End::ResetByFar));
        assert!(is_reset(&client.read(&mut [0; 8]).await));
    });
}
