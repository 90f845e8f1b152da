//! What a DestinationRule says of connections that nobody looks into.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use mesh_transport::hbone::TunnelStream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::world::{CARTS, World, run_with};

fn rule(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: cart, namespace: shop}}\n\
         spec:\n  host: cart\n  trafficPolicy: {{{policy}}}\n"
    )
}

/// A server that says its number to whoever connects, and how many have.
async fn serve(index: usize) -> Rc<Cell<usize>> {
    let listener = TcpListener::bind((CARTS[index], 9090)).await.expect("listen");
    let accepted = Rc::new(Cell::new(0));
    let counting = accepted.clone();
    spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counting.set(counting.get() + 1);
            spawn_local(async move {
                stream.write_u8(u8::try_from(index).expect("few")).await.expect("write");
                // Until the client has ended.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    accepted
}

/// Connects, and reads which server that is.
async fn connect(world: &World) -> Option<(TunnelStream, usize)> {
    let mut stream = world.tunnel("10.96.0.1:90").await.ok()?;
    stream.write_all(b"\x16\x03\x01").await.ok()?;
    let index = stream.read_u8().await.ok()?;
    Some((stream, index.into()))
}

#[test]
fn connections_are_no_more_than_may_be() {
    run_with(&rule("connectionPool: {tcp: {maxConnections: 2}}"), async |world| {
        for index in 0..CARTS.len() {
            serve(index).await;
        }
        let first = connect(&world).await.expect("a connection");
        let _second = connect(&world).await.expect("a connection");
        assert!(connect(&world).await.is_none(), "two are as many as may be");
        drop(first);
        while connect(&world).await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_connection_that_is_silent_for_its_time_ends() {
    run_with(&rule("connectionPool: {tcp: {idleTimeout: 0.5s}}"), async |world| {
        for index in 0..CARTS.len() {
            serve(index).await;
        }
        let (mut stream, _) = connect(&world).await.expect("a connection");
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            stream.write_all(b"still here").await.expect("it goes on while something moves");
        }
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "it is still open");
    });
}

#[test]
fn a_connection_ends_once_it_is_as_old_as_it_may_become() {
    run_with(&rule("connectionPool: {tcp: {maxConnectionDuration: 0.5s}}"), async |world| {
        for index in 0..CARTS.len() {
            serve(index).await;
        }
        let (stream, _) = connect(&world).await.expect("a connection");
        let (mut read, mut write) = tokio::io::split(stream);
        let speaks = async {
            while write.write_all(b"still here").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // The server ends none.
        let ended = async { read.read_to_end(&mut Vec::new()).await };
        let (_, ended) = tokio::join!(speaks, ended);
        assert!(ended.is_err(), "what is cut off is no whole connection: {ended:?}");
    });
}

#[test]
fn lines_of_connections_are_those_that_telemetry_has() {
    let telemetry = "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: of-test, namespace: shop}\n\
                     spec: {accessLogging: [{disabled: true}]}\n";
    run_with("", async |world| {
        for index in 0..CARTS.len() {
            serve(index).await;
        }
        let said = |world: &World| {
            let log = world.log.lock().expect("log");
            log.iter().filter(|line| line.contains("\"access\"") && line.contains("connection")).count()
        };
        drop(connect(&world).await.expect("a connection"));
        while said(&world) < 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The change is in force once a connection has no line: each is told of as it ends.
        world.configure(telemetry);
        let mut before = 0;
        while before != said(&world) {
            before = said(&world);
            drop(connect(&world).await.expect("a connection"));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        for _ in 0..5 {
            drop(connect(&world).await.expect("a connection"));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(said(&world), before, "the Telemetry has no lines");
    });
}

#[test]
fn connections_go_where_fewest_are_open() {
    run_with("", async |world| {
        let accepted = [serve(0).await, serve(1).await, serve(2).await];
        let mut open = Vec::new();
        for _ in 0..30 {
            open.push(connect(&world).await.expect("a connection"));
        }
        let counts = accepted.map(|count| count.get());
        // Of two at random the less busy one: none is ever more than a few ahead.
        assert!(counts.iter().all(|count| (7..=13).contains(count)), "{counts:?}");
    });
}

#[test]
fn a_clients_connections_go_to_one_endpoint_by_its_address() {
    run_with(&rule("loadBalancer: {consistentHash: {useSourceIp: true}}"), async |world| {
        for index in 0..CARTS.len() {
            serve(index).await;
        }
        let (_open, first) = connect(&world).await.expect("a connection");
        for _ in 0..20 {
            assert_eq!(connect(&world).await.expect("a connection").1, first);
        }
    });
}

#[test]
fn an_endpoint_that_cannot_be_connected_is_left_out() {
    let policy = "loadBalancer: {simple: ROUND_ROBIN}, \
                  outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 60s, maxEjectionPercent: 50}";
    let apart = "loadBalancer: {simple: ROUND_ROBIN}, \
                 outlierDetection: {consecutive5xxErrors: 1, splitExternalLocalOriginErrors: true, \
                 consecutiveLocalOriginFailures: 4, baseEjectionTime: 60s, maxEjectionPercent: 50}";
    for (policy, after) in [(policy, 2), (apart, 4)] {
        run_with(&rule(policy), async move |world| {
            // Nobody listens at the third.
            let (_, _) = (serve(0).await, serve(1).await);
            let mut failed = 0;
            for _ in 0..30 {
                failed += usize::from(connect(&world).await.is_none());
            }
            assert_eq!(failed, after, "ejected after so many failures in a row");
        });
    }
}
