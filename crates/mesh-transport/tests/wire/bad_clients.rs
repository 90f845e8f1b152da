//! Clients that speak something else are refused and counted, and others are unhurt.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Version};
use mesh_transport::{Limits, RejectReason};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::world::{World, identity, run};

async fn good_config(world: &World) -> ClientConfig {
    let tls = world.identities.fetch(&identity("cart")).await.expect("identity");
    ClientConfig::clone(&tls.client(&identity("pay")).expect("config"))
}

async fn handshake(world: &World, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(world.mesh).await.expect("connect");
    let name = ServerName::IpAddress(world.mesh.ip().into());
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[test]
fn bytes_that_are_not_tls_are_refused() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let empty_records = [0x16, 3, 1, 0, 0].repeat(100);
        for first in [
            &empty_records[..],
            &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &[0; 64],
        ] {
            world.server.results.borrow_mut().clear();
            let mut stream = TcpStream::connect(world.mesh).await.expect("connect");
            stream.write_all(first).await.expect("write");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert_eq!(world.server.first_rejection().await, Some(RejectReason::NotTls));
        }
        world.tunnel().await.expect("others are unhurt");
    });
}

/// A ClientHello that knows nothing newer than TLS 1.2 (RFC 5246): one suite, no supported_versions.
fn tls12_hello() -> Vec<u8> {
    let suites = [0x00, 0x02, 0xc0, 0x2b];
    let extensions = [
        &[0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17][..],
        &[0x00, 0x0b, 0x00, 0x02, 0x01, 0x00],
        &[0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03],
        &[0x00, 0x17, 0x00, 0x00],
    ]
    .concat();
    let mut body = vec![0x03, 0x03];
    body.extend([7; 32]);
    body.push(0);
    body.extend(suites);
    body.extend([0x01, 0x00]);
    body.extend(u16::try_from(extensions.len()).expect("short").to_be_bytes());
    body.extend(extensions);
    let mut hello = vec![0x16, 0x03, 0x01];
    hello.extend(u16::try_from(body.len() + 4).expect("short").to_be_bytes());
    hello.extend([0x01, 0x00]);
    hello.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
    hello.extend(body);
    hello
}

#[test]
fn tls_1_2_is_refused() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let mut stream = TcpStream::connect(world.mesh).await.expect("connect");
        stream.write_all(&tls12_hello()).await.expect("write");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(world.server.first_rejection().await, Some(RejectReason::TlsVersion));
        // Alert, fatal, protocol_version.
        assert_eq!(answer, [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 70]);
    });
}

#[test]
fn another_application_protocol_is_refused_and_so_is_none() {
    run(async |carriers| {
        for protocols in [vec![b"http/1.1".to_vec()], vec![]] {
            let world = World::new(carriers).await;
            let mut config = good_config(&world).await;
            config.alpn_protocols = protocols;
            if let Ok(mut stream) = handshake(&world, config).await {
                let _ = stream.read(&mut [0; 8]).await;
            }
            assert_eq!(world.server.first_rejection().await, Some(RejectReason::Alpn));
        }
    });
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let mut config = good_config(&world).await;
        config.client_auth_cert_resolver = Arc::new(NoCertificate);
        if let Ok(mut stream) = handshake(&world, config).await {
            let _ = stream.read(&mut [0; 8]).await;
        }
        assert_eq!(world.server.first_rejection().await, Some(RejectReason::CertificateMissing));
    });
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn a_connection_that_says_nothing_is_closed_in_time() {
    run(async |carriers| {
        let limits = Limits { handshake_timeout: std::time::Duration::from_millis(50), ..Limits::default() };
        let world = World::with(carriers, limits).await;
        let mut silent = TcpStream::connect(world.mesh).await.expect("connect");
        let mut half = TcpStream::connect(world.mesh).await.expect("connect");
        half.write_all(&tls12_hello()[..20]).await.expect("write");
        for stream in [&mut silent, &mut half] {
            let _ = stream.read(&mut [0; 8]).await;
        }
        world.server.until(|node| node.results.borrow().len() == 2).await;
        for result in world.server.results.borrow().iter() {
            let reason = result.as_ref().err().and_then(|e| e.reason());
            assert_eq!(reason, Some(RejectReason::HandshakeTimeout));
        }
    });
}

#[test]
fn silent_connections_do_not_keep_others_from_shaking_hands() {
    run(async |carriers| {
        let world = World::with(carriers, Limits { handshakes_in_flight: 1, ..Limits::default() }).await;
        let mut silent = Vec::new();
        for _ in 0..100 {
            silent.push(TcpStream::connect(world.mesh).await.expect("connect"));
        }
        world.tunnel().await.expect("tunnel");
    });
}

/// Sends one request over a good connection and returns its status.
async fn ask(world: &World, request: Request<()>) -> Result<StatusCode, h2::Error> {
    let mut config = good_config(world).await;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = handshake(world, config).await.expect("handshake");
    let (sender, connection) = h2::client::handshake::<_>(stream).await.expect("preface");
    spawn_local(connection);
    let mut sender: h2::client::SendRequest<Bytes> = sender.ready().await?;
    let (response, _send) = sender.send_request(request, false)?;
    Ok(response.await?.status())
}

fn request(method: Method, uri: &str) -> Request<()> {
    Request::builder().version(Version::HTTP_2).method(method).uri(uri).body(()).expect("request")
}

#[test]
fn requests_that_are_no_connect_to_an_address_are_answered_and_counted() {
    run(async |carriers| {
        for (asked, status, reason) in [
            (request(Method::GET, "https://10.1.0.5/"), StatusCode::METHOD_NOT_ALLOWED, RejectReason::Method),
            (request(Method::POST, "https://10.1.0.5/"), StatusCode::METHOD_NOT_ALLOWED, RejectReason::Method),
            (request(Method::CONNECT, "cart.shop:80"), StatusCode::BAD_REQUEST, RejectReason::Authority),
            (request(Method::CONNECT, "10.1.0.5"), StatusCode::BAD_REQUEST, RejectReason::Authority),
            (request(Method::CONNECT, "10.1.0.5:0"), StatusCode::BAD_REQUEST, RejectReason::Authority),
        ] {
            let world = World::new(carriers).await;
            assert_eq!(ask(&world, asked).await.expect("answer"), status);
            assert_eq!(*world.server.rejects.borrow(), [reason]);
            assert!(world.server.seen.borrow().is_empty());
        }
    });
}

#[test]
fn headers_without_end_break_the_connection_and_nothing_else() {
    run(async |carriers| {
        let world = World::new(carriers).await;
        let mut config = good_config(&world).await;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut stream = handshake(&world, config).await.expect("handshake");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("preface");
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("settings");
        // HEADERS, then CONTINUATIONs (RFC 9113, section 6.10), each a literal field of 200 bytes without END_HEADERS.
        let mut field = vec![0x00, 0x01, b'a', 0x7f, 0x49];
        field.extend([b'b'; 200]);
        let length = u8::try_from(field.len()).expect("short");
        stream.write_all(&[&[0, 0, length, 1, 0, 0, 0, 0, 1][..], &field].concat()).await.expect("headers");
        let continuation = [&[0, 0, length, 9, 0, 0, 0, 0, 1][..], &field].concat();
        let flood = async {
            while stream.write_all(&continuation).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        let rejected = async {
            world.server.until(|node| !node.results.borrow().is_empty()).await;
        };
        tokio::select! {
            () = flood => rejected_reason(&world).await,
            () = rejected => rejected_reason(&world).await,
        }
        world.tunnel().await.expect("others are unhurt");
    });
}

async fn rejected_reason(world: &World) {
    assert_eq!(world.server.first_rejection().await, Some(RejectReason::Http2));
}
