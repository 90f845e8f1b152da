use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::tls::provider;

/// The ClientHello of a client that offers these protocols.
fn hello(offered: &[&str]) -> Vec<u8> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let mut config = builder.expect("versions").with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("cart.shop.svc").expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("written");
    bytes
}

#[test]
fn a_sidecar_is_known_by_any_of_istios_protocols() {
    for offered in [
        &["istio"][..],
        &["istio-peer-exchange", "istio"],
        &["istio-http/1.0", "istio", "http/1.0"],
        &["istio-http/1.1", "istio", "http/1.1"],
        &["h2", "istio", "istio-h2"],
        &["istio-peer-exchange"],
    ] {
        assert_eq!(recognise(&hello(offered)), Some(Opening::Sidecar), "{offered:?}");
    }
}

#[test]
fn an_applications_own_tls_is_its_own() {
    for offered in [&[][..], &["h2"], &["h2", "http/1.1"], &["istiod"], &["not-istio"], &["mesh-tunnel/1"]] {
        assert_eq!(recognise(&hello(offered)), Some(Opening::Other), "{offered:?}");
    }
}

#[test]
fn nothing_is_said_before_the_whole_message_is_there() {
    for offered in [&["istio"][..], &["h2"]] {
        let whole = hello(offered);
        for length in 1..whole.len() {
            assert_eq!(recognise(&whole[..length]), None, "{offered:?}, {length} of {}", whole.len());
        }
    }
}

proptest! {
    /// Whatever comes is looked at without a panic, and bytes behind a ClientHello change nothing about it.
    #[test]
    fn any_bytes_are_looked_at(mut bytes in vec(any::<u8>(), 0..4096), is_tls: bool, behind in vec(any::<u8>(), 0..64)) {
        if is_tls && let Some(first) = bytes.first_mut() {
            *first = HANDSHAKE;
        }
        prop_assert_ne!(recognise(&bytes), Some(Opening::Sidecar));
        prop_assert_eq!(recognise(&[hello(&["istio"]), behind].concat()), Some(Opening::Sidecar));
    }
}

async fn socket_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address");
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("connect"), server.expect("accept").0)
}

#[tokio::test]
async fn what_is_looked_at_stays_unread() {
    for (bytes, expected) in [
        (hello(&["istio"]), Opening::Sidecar),
        (hello(&["h2"]), Opening::Other),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Opening::Other),
    ] {
        let (mut client, mut server) = socket_pair().await;
        client.write_all(&bytes).await.expect("write");
        assert_eq!(opening(&server).await, expected);
        let mut read = vec![0; bytes.len()];
        server.read_exact(&mut read).await.expect("read");
        assert_eq!(read, bytes);
    }
}

#[tokio::test]
async fn a_message_may_come_in_pieces() {
    let (mut client, server) = socket_pair().await;
    let (mut looking, whole) = (Box::pin(opening(&server)), hello(&["istio"]));
    for piece in whole.chunks(whole.len() / 3) {
        assert!(is_pending(&mut looking).await, "it is not whole yet");
        client.write_all(piece).await.expect("write");
    }
    assert_eq!(looking.await, Opening::Sidecar);
}

/// Whether nothing comes of it although all that has happened was heard of.
async fn is_pending(looking: &mut (impl Future<Output = Opening> + Unpin)) -> bool {
    for _ in 0..10 {
        tokio::select! {
            biased;
            _ = &mut *looking => return false,
            () = tokio::task::yield_now() => {}
        }
    }
    true
}

#[tokio::test]
async fn a_message_that_breaks_off_is_nobodys() {
    let whole = hello(&["istio"]);
    for bytes in [&[][..], &whole[..1], &whole[..whole.len() - 1]] {
        let (mut client, server) = socket_pair().await;
        client.write_all(bytes).await.expect("write");
        drop(client);
        assert_eq!(opening(&server).await, Opening::Other, "{} bytes", bytes.len());
    }
}

#[tokio::test]
async fn a_message_without_end_is_nobodys() {
    let (mut client, server) = socket_pair().await;
    // A handshake message that claims 64 KiB, in records of 1 KiB.
    let mut endless = vec![HANDSHAKE, 3, 1, 4, 0, 1, 0, 255, 255];
    endless.resize(5 + 1024, 0);
    for _ in 0..MAX_HELLO / 1024 {
        endless.extend([HANDSHAKE, 3, 1, 4, 0]);
        endless.resize(endless.len() + 1024, 0);
    }
    client.write_all(&endless).await.expect("write");
    assert_eq!(opening(&server).await, Opening::Other);
}

#[tokio::test]
async fn a_socket_taken_anew_shows_what_was_looked_at() {
    let (mut client, server) = socket_pair().await;
    let whole = hello(&["istio"]);
    client.write_all(&whole[..100]).await.expect("write");
    server.readable().await.expect("readable");
    assert!(is_pending(&mut Box::pin(opening(&server))).await);
    let mut server = anew(server).expect("anew");
    let mut read = vec![0; 100];
    server.read_exact(&mut read).await.expect("read");
    assert_eq!(read, whole[..100]);
}
