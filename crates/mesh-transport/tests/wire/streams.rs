//! Tunnels as byte streams, as waypoints have them.

use std::cell::Cell;
use std::io::ErrorKind;

use mesh_transport::hbone::{Tunnel, TunnelStream};
use mesh_transport::{Carriers, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{Policy, World, is_reset, reset, run, run_once};

/// More than a record, a buffer and a socket hold.
const LONG: usize = 3 << 20;

async fn stream(world: &World) -> TunnelStream {
    world.tunnel().await.expect("tunnel").into()
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| u8::try_from(at * at % 251).expect("small")).collect()
}

#[test]
fn bytes_come_back_as_they_went() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        world.server.policy.set(Policy::Echo);
        for count in [0, 1, 16_383, 16_384, 70_000, LONG] {
            let (mut from, mut to) = tokio::io::split(stream(&world).await);
            let (sent, mut came) = (bytes(count), Vec::new());
            let sending = async {
                to.write_all(&sent).await.expect("write");
                to.shutdown().await.expect("end");
            };
            let (read, ()) = tokio::join!(from.read_to_end(&mut came), sending);
            assert_eq!(read.expect("read"), count);
            assert!(came == sent, "{count} bytes came changed");
        }
        // Each ended in order, and left its connection to the next.
        assert_eq!(world.dials(), 1);
    });
}

#[test]
fn an_end_in_one_direction_leaves_the_other_open() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let (mut stream, mut app) = tokio::join!(stream(&world), world.accept());
        stream.write_all(b"question").await.expect("write");
        stream.shutdown().await.expect("end");
        let mut asked = Vec::new();
        app.read_to_end(&mut asked).await.expect("the end came");
        assert_eq!(asked, b"question");
        app.write_all(b"answer").await.expect("write");
        drop(app);
        let mut answered = Vec::new();
        stream.read_to_end(&mut answered).await.expect("the end came");
        assert_eq!(answered, b"answer");
        assert!(stream.write(b"more").await.is_err(), "nothing may follow an end");
    });
}

#[test]
fn a_reset_is_an_error_and_no_end() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let (mut stream, app) = tokio::join!(stream(&world), world.accept());
        reset(app);
        let read = stream.read(&mut [0; 8]).await;
        assert!(is_reset(&read), "{read:?}");
    });
}

#[test]
fn a_stream_that_is_dropped_before_its_end_is_reset() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let (mut stream, mut app) = tokio::join!(stream(&world), world.accept());
        stream.write_all(b"half").await.expect("write");
        app.read_exact(&mut [0; 4]).await.expect("it came");
        drop(stream);
        let read = app.read(&mut [0; 8]).await;
        assert!(is_reset(&read), "{read:?}");
    });
}

#[test]
fn an_end_that_is_not_waited_for_is_a_reset_where_the_far_side_goes_on() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let (mut stream, mut app) = tokio::join!(stream(&world), world.accept());
        stream.shutdown().await.expect("end");
        assert_eq!(app.read(&mut [0; 8]).await.expect("the end came"), 0);
        drop(stream);
        // What it says now has nobody to hear it, and it is not told otherwise.
        let error = loop {
            if let Err(error) = app.write_all(&[0; 1024]).await {
                break error;
            }
            tokio::task::yield_now().await;
        };
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error:?}");
    });
}

#[test]
fn what_came_before_a_write_failed_is_read() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let (mut stream, mut app) = tokio::join!(stream(&world), world.accept());
        app.write_all(b"too large").await.expect("write");
        app.shutdown().await.expect("end");
        let mut said = [0; 9];
        // The first octet tells that all has come.
        stream.read_exact(&mut said[..1]).await.expect("it came");
        reset(app);
        let chunk = bytes(1 << 20);
        while stream.write_all(&chunk).await.is_ok() {}
        stream.read_exact(&mut said[1..]).await.expect("it came before");
        assert_eq!(&said, b"too large");
    });
}

#[test]
fn what_nobody_reads_holds_its_writer_up() {
    /// More than sockets and windows between the two hold.
    const HELD: usize = 40 << 20;
    run(async |carriers| {
        let world = World::new(carriers).await;
        let (mut stream, mut app) = tokio::join!(stream(&world), world.accept());
        let (total, came) = (2 * HELD, Cell::new(0));
        let writing = async {
            let chunk = bytes(1 << 20);
            for _ in 0..total / chunk.len() {
                stream.write_all(&chunk).await.expect("write");
            }
            stream.shutdown().await.expect("end");
            assert!(came.get() >= total - HELD, "all was taken when {} had been read", came.get());
        };
        let reading = async {
            let mut room = vec![0; 64 << 10];
            while came.get() < total {
                came.set(came.get() + app.read(&mut room).await.expect("read"));
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(writing, reading);
    });
}

#[test]
fn who_waits_hears_that_its_pod_has_left() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let (mut stream, _app) = tokio::join!(stream(&world), world.accept());
        let source = world.key().source;
        let mut octet = [0; 1];
        let (read, ()) = tokio::join!(stream.read(&mut octet), async {
            tokio::task::yield_now().await;
            world.pool.close_source(&source);
        });
        let error = read.expect_err("it goes on");
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error:?}");
    });
}

#[test]
fn where_enough_have_a_connection_to_themselves_others_share_one() {
    run_once(async || {
        let limits = Limits { direct_connections: 2, ..Limits::default() };
        let world = World::with(Carriers::DirectOrH2, limits).await;
        world.server.policy.set(Policy::Echo);
        let mut open = Vec::new();
        for _ in 0..20 {
            open.push(world.tunnel().await.expect("tunnel"));
        }
        let direct = open.iter().filter(|tunnel| matches!(tunnel, Tunnel::Direct(_))).count();
        assert_eq!((direct, world.dials()), (2, 3));
        for tunnel in open {
            let mut stream = TunnelStream::from(tunnel);
            stream.write_all(b"here").await.expect("write");
            stream.read_exact(&mut [0; 4]).await.expect("it is served");
        }
    });
}
