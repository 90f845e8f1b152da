//! Every byte arrives, once, in order, in both directions at once, whatever the pieces and however slow the reader.

use std::sync::atomic::Ordering;

use mesh_transport::{Carriers, End, Limits, RelayCounters};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::spawn_local;

use crate::world::{World, run};

/// Reproducible bytes that differ at every position.
fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

async fn exchange(carriers: Carriers, length: usize) {
    let world = World::new(carriers).await;
    let connection = world.connect().await;
    let (up, down) = (pattern(length, 1), pattern(length, 2));
    let (mut client, mut server) = (connection.client, connection.server);
    let (mut client_got, mut server_got) = (Vec::new(), Vec::new());
    {
        let (mut client_read, mut client_write) = client.split();
        let (mut server_read, mut server_write) = server.split();
        let ((), (), a, b) = tokio::join!(
            send_in_pieces(&mut client_write, &up, 3),
            send_in_pieces(&mut server_write, &down, 4),
            client_read.read_to_end(&mut client_got),
            server_read.read_to_end(&mut server_got)
        );
        a.expect("client reads");
        b.expect("server reads");
    }
    assert!(server_got == up, "{length} bytes up arrived changed ({} bytes)", server_got.len());
    assert!(client_got == down, "{length} bytes down arrived changed ({} bytes)", client_got.len());
    let outcome = connection.relay.await.expect("relay");
    assert_eq!((outcome.sent, outcome.received, outcome.end), (length as u64, length as u64, End::Closed));
}

async fn send_in_pieces(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8], seed: u64) {
    let mut rest = bytes;
    let mut random = fastrand::Rng::with_seed(seed);
    while !rest.is_empty() {
        let largest = [1, 10, 1000, 20_000, 300_000][random.usize(..5)];
        let (piece, more) = rest.split_at(random.usize(1..=largest).min(rest.len()));
        stream.write_all(piece).await.expect("write");
        rest = more;
    }
    stream.shutdown().await.expect("shutdown");
}

#[test]
fn every_byte_arrives_in_both_directions() {
    for length in [0, 1, 16_383, 16_384, 16_385, 1_000_000, 30_000_000] {
        run(async |carriers| exchange(carriers, length).await);
    }
}

#[test]
fn a_reader_that_stops_stops_its_writer_and_then_gets_everything() {
    run(async |carriers| {
        let limits = Limits { stream_window: 1 << 20, ..Limits::default() };
        let world = World::with(carriers, limits).await;
        let mut connection = world.connect().await;
        let total = 64 << 20;
        let sent = pattern(total, 5);
        let writer = async {
            send_in_pieces(&mut connection.client, &sent, 6).await;
        };
        let reader = async {
            let mut got = Vec::new();
            // The first byte shows that the flow began; then nothing is read until the writer's node takes no more.
            got.push(connection.server.read_u8().await.expect("first byte"));
            let stalled = until_still(|| connection.counters.sent.load(Ordering::Relaxed)).await;
            connection.server.read_to_end(&mut got).await.expect("the rest");
            (got, stalled)
        };
        let ((), (got, stalled)) = tokio::join!(writer, reader);
        assert!(got == sent, "bytes arrived changed");
        // The windows and the kernel's buffers hold some of it, but never a large part.
        assert!(stalled < 24 << 20, "{stalled} bytes were taken from a writer whose reader stood still");
    });
}

/// What they leave unread is in the connection's window, which has room for it.
#[test]
fn readers_that_stop_hold_up_no_other_tunnel_of_their_connection() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let mut stopped = Vec::new();
        for _ in 0..12 {
            let (client, server) = (world.connect().await, world.connect().await);
            // One whose server reads nothing, and one whose client does not.
            for (mut writer, reader, relay, counters) in [
                (client.client, client.server, client.relay, client.counters),
                (server.server, server.client, server.relay, server.counters),
            ] {
                spawn_local(async move {
                    let piece = [b's'; 64 << 10];
                    while writer.write_all(&piece).await.is_ok() {}
                });
                stopped.push((reader, relay, counters));
            }
        }
        let passed = |counters: &RelayCounters| {
            counters.sent.load(Ordering::Relaxed) + counters.received.load(Ordering::Relaxed)
        };
        until_still(|| stopped.iter().map(|(_, _, counters)| passed(counters)).sum()).await;
        assert!(stopped.iter().all(|(_, relay, counters)| !relay.is_finished() && passed(counters) > 0));
        let connection = world.connect().await;
        let (sent, mut client, mut server) = (pattern(16 << 20, 7), connection.client, connection.server);
        let (mut up, mut down) = (Vec::new(), Vec::new());
        {
            let (mut client_read, mut client_write) = client.split();
            let (mut server_read, mut server_write) = server.split();
            let ((), (), a, b) = tokio::join!(
                send_in_pieces(&mut client_write, &sent, 8),
                send_in_pieces(&mut server_write, &sent, 9),
                client_read.read_to_end(&mut down),
                server_read.read_to_end(&mut up)
            );
            assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
        }
        assert!(up == sent && down == sent, "{} octets up, {} down", up.len(), down.len());
    });
}

/// What is counted once it has stopped moving.
async fn until_still(count: impl Fn() -> u64) -> u64 {
    let (mut last, mut same) = (0, 0);
    while same < 20 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        let now = count();
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}

#[test]
fn the_far_side_learns_who_connects_and_whereto() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let _connection = world.connect().await;
        let seen = world.server.seen.borrow()[0].clone();
        let asked = world.request();
        assert_eq!(seen.peer, crate::world::identity("cart"));
        assert_eq!(seen.authority, asked.authority);
        assert_eq!(seen.forwarded, asked.forwarded);
        assert_eq!(seen.baggage, asked.baggage);
        assert_eq!(seen.traceparent, asked.traceparent);
    });
}

#[test]
fn a_thousand_connections_at_once_do_not_mix() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let mut connections = Vec::new();
        for _ in 0..1000 {
            connections.push(world.connect().await);
        }
        for (number, connection) in connections.iter_mut().enumerate() {
            connection.client.write_all(&number.to_be_bytes()).await.expect("write");
        }
        for (number, connection) in connections.iter_mut().enumerate() {
            let mut got = [0; 8];
            connection.server.read_exact(&mut got).await.expect("read");
            assert_eq!(usize::from_be_bytes(got), number);
        }
    });
}
