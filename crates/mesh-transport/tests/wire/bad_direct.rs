//! `mesh-tunnel/1` spoken by others: rustls's own records on one side, ours on the other, and every way to break the rules.

use std::sync::Arc;

use mesh_transport::hbone::ConnectError;
use mesh_transport::{Carriers, RejectReason, direct};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::world::{World, identity, is_reset, run_once};

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const DATA: u8 = 3;
const FIN: u8 = 4;
const RESET: u8 = 5;

/// A client that says what it is told to.
struct Client {
    stream: TlsStream<TcpStream>,
}

impl Client {
    async fn new(world: &World) -> Self {
        let tls = world.identities.fetch(&identity("cart")).await.expect("identity");
        let mut config = ClientConfig::clone(&tls.client(&identity("pay")).expect("config"));
        config.alpn_protocols = vec![direct::ALPN.to_vec()];
        let stream = TcpStream::connect(world.mesh).await.expect("connect");
        let name = ServerName::IpAddress(world.mesh.ip().into());
        let connector = TlsConnector::from(Arc::new(config));
        Self { stream: connector.connect(name, stream).await.expect("handshake") }
    }

    /// One frame, one record.
    async fn say(&mut self, frame: u8, payload: &[u8]) {
        self.stream.write_all(&[&[frame][..], payload].concat()).await.expect("write");
        self.stream.flush().await.expect("flush");
    }

    async fn hear(&mut self, expected: &[u8]) {
        let mut got = vec![0; expected.len()];
        self.stream.read_exact(&mut got).await.expect("read");
        assert_eq!(got, expected);
    }

    /// Asks for a tunnel. Returns the server application's end.
    async fn open(&mut self, world: &World) -> TcpStream {
        let target = world.request().authority.to_string();
        self.say(REQUEST, target.as_bytes()).await;
        let backend = world.accept().await;
        self.hear(&[RESPONSE, b'2', b'0', b'0']).await;
        backend
    }
}

fn direct(test: impl AsyncFnOnce(World)) {
    run_once(async || test(World::new(Carriers::DirectOrH2).await).await);
}

#[test]
fn records_of_rustls_and_ours_understand_each_other_even_when_keys_change() {
    direct(async |world| {
        let mut client = Client::new(&world).await;
        let mut backend = client.open(&world).await;
        for round in 0..5 {
            client.say(DATA, &[round; 5000]).await;
            let mut got = [0; 5000];
            backend.read_exact(&mut got).await.expect("read");
            assert_eq!(got, [round; 5000]);
            backend.write_all(&[round; 100]).await.expect("write");
            client.hear(&[&[DATA][..], &[round; 100]].concat()).await;
            // Asks the other side to change its keys, too.
            client.stream.get_mut().1.refresh_traffic_keys().expect("refresh");
        }
        client.say(FIN, b"").await;
        assert_eq!(backend.read(&mut [0; 8]).await.expect("end"), 0);
        drop(backend);
        client.hear(&[FIN]).await;
        client.open(&world).await;
    });
}

#[test]
fn a_target_that_is_no_address_is_400_and_the_connection_stays() {
    direct(async |world| {
        let mut client = Client::new(&world).await;
        for target in ["cart.shop:80", "", "10.1.0.5:0", "10.1.0.5:80\nno colon", "\u{fffd}"] {
            client.say(REQUEST, target.as_bytes()).await;
            client.hear(&[RESPONSE, b'4', b'0', b'0']).await;
        }
        client.say(REQUEST, &[0xff; 100]).await;
        client.hear(&[RESPONSE, b'4', b'0', b'0']).await;
        assert_eq!(*world.server.rejects.borrow(), [RejectReason::Authority; 6]);
        client.open(&world).await;
    });
}

#[test]
fn anything_but_a_request_between_tunnels_ends_the_connection() {
    for frame in [0, RESPONSE, DATA, FIN, 6, 99, 255] {
        direct(async |world| {
            let mut client = Client::new(&world).await;
            client.say(frame, b"").await;
            assert_eq!(world.server.first_rejection().await, Some(RejectReason::Tunnel), "frame {frame}");
        });
    }
}

#[test]
fn anything_but_data_and_its_end_within_a_tunnel_resets_the_application() {
    for frame in [0, REQUEST, RESPONSE, 6, 255] {
        direct(async |world| {
            let mut client = Client::new(&world).await;
            let mut backend = client.open(&world).await;
            client.say(frame, b"10.1.0.5:80").await;
            assert!(is_reset(&backend.read(&mut [0; 8]).await), "frame {frame}");
        });
    }
}

#[test]
fn data_after_its_end_resets_the_application() {
    direct(async |world| {
        let mut client = Client::new(&world).await;
        let mut backend = client.open(&world).await;
        client.say(FIN, b"").await;
        assert_eq!(backend.read(&mut [0; 8]).await.expect("end"), 0);
        client.say(DATA, b"more").await;
        while backend.write_all(&[0; 1000]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_reset_comes_behind_the_bytes_before_it() {
    direct(async |world| {
        let mut client = Client::new(&world).await;
        let mut backend = client.open(&world).await;
        client.say(DATA, b"last words").await;
        let mut got = [0; 10];
        backend.read_exact(&mut got).await.expect("read");
        client.say(RESET, b"").await;
        assert!(is_reset(&backend.read(&mut [0; 8]).await));
    });
}

#[test]
fn an_end_without_fin_is_a_reset() {
    for orderly in [true, false] {
        direct(async |world| {
            let mut client = Client::new(&world).await;
            let mut backend = client.open(&world).await;
            client.say(DATA, b"first half").await;
            let mut got = [0; 10];
            backend.read_exact(&mut got).await.expect("read");
            if orderly {
                client.stream.shutdown().await.expect("close_notify");
            } else {
                drop(client);
            }
            assert!(is_reset(&backend.read(&mut [0; 8]).await), "orderly: {orderly}");
        });
    }
}

#[test]
fn bytes_that_are_no_records_end_the_connection() {
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[23, 3, 3, 0, 32, 0, 0, 0][..], &[23, 3, 3, 0xff, 0xff]] {
        direct(async |world| {
            let mut client = Client::new(&world).await;
            let raw = client.stream.get_mut().0;
            raw.write_all(bytes).await.expect("write");
            raw.write_all(&[0; 64]).await.expect("write");
            assert_eq!(world.server.first_rejection().await, Some(RejectReason::Tunnel));
            world.tunnel().await.expect("others are unhurt");
        });
    }
}

/// What a pool makes of a server that answers a REQUEST with `answer` and closes.
async fn answered_with(answer: &'static [u8]) -> ConnectError {
    let mut world = World::new(Carriers::DirectOrH2).await;
    let listener = crate::world::listen().await;
    world.mesh = listener.local_addr().expect("address");
    let tls = world.identities.fetch(&identity("pay")).await.expect("identity");
    let acceptor = TlsAcceptor::from(tls.server.clone());
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = acceptor.accept(stream).await.expect("handshake");
            let _ = stream.read(&mut [0; 1000]).await;
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    });
    world.tunnel().await.expect_err("no tunnel")
}

#[test]
fn a_server_that_answers_nonsense_gives_no_tunnel() {
    for answer in [&b""[..], b"\x02", b"\x02abc", b"\x02099", b"\x03200", b"\x04", b"\x63200"] {
        run_once(async || {
            let error = answered_with(answer).await;
            assert!(matches!(error, ConnectError::Broken { .. }), "{answer:?}: {error}");
        });
    }
}
