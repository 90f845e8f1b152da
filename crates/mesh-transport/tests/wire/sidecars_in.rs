//! Istio's sidecars that connect to a pod of ours, with another implementation of TLS's records in their place: what they may send,
//! how connections end, and who is turned away.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use mesh_core::TrustDomain;
use mesh_transport::hbone::{ServeError, Server, TunnelEnd};
use mesh_transport::sidecar::Sidecar;
use mesh_transport::{
    Carriers, CertificateAuthority, End, Identities, Limits, Outcome, RejectReason, RelayCounters, TlsIdentity, relay,
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::world::{identities, identity, is_reset, reset, run_once, socket_pair};

const LARGE: usize = 3_000_000;
/// What Envoy offers for a connection in which it reads nothing.
const OFFERED: [&str; 2] = ["istio-peer-exchange", "istio"];

fn authority(trust_domain: &TrustDomain) -> CertificateAuthority {
    CertificateAuthority::generate(trust_domain, SystemTime::now()).expect("authority")
}

async fn of(identities: &Identities, account: &str) -> Arc<TlsIdentity> {
    identities.fetch(&identity(account)).await.expect("identity")
}

/// What a sidecar of `tls` dials a pod of account `pay` with.
fn config(tls: &TlsIdentity, offered: &[&str]) -> ClientConfig {
    let mut config = ClientConfig::clone(&tls.client(&identity("pay")).expect("config"));
    config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

async fn dial(config: ClientConfig, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("pay.shop.svc").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

/// One sidecar's connection to an application.
struct Connection {
    client: TlsStream<TcpStream>,
    server: TcpStream,
    sidecar: Sidecar,
    relay: JoinHandle<Outcome>,
}

async fn connect() -> Connection {
    let identities = identities(authority(&TrustDomain::default()), Carriers::default());
    let (client, pay) = (of(&identities, "cart").await, of(&identities, "pay").await);
    let (near, far) = socket_pair().await;
    let server = Server::new(Limits::default(), identities.trust());
    let (client, accepted) = tokio::join!(dial(config(&client, &OFFERED), near), server.accept_sidecar(far, &pay));
    let (sidecar, tls) = accepted.expect("accepted");
    let (app, server) = socket_pair().await;
    let relay = spawn_local(async move { relay(app, tls, &RelayCounters::default()).await });
    Connection { client: client.expect("connected"), server, sidecar, relay }
}

#[test]
fn what_is_inside_is_the_applications_alone() {
    run_once(async || {
        let Connection { mut client, mut server, sidecar, relay } = connect().await;
        assert_eq!(sidecar.identity, identity("cart"));
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"istio"[..]), "no preamble is agreed on");
        let pattern: Vec<u8> = (0..LARGE).map(|at| (at % 251) as u8).collect();
        let echo = spawn_local(async move {
            let (mut from, mut to) = server.split();
            tokio::io::copy(&mut from, &mut to).await.expect("echoed");
            to.shutdown().await.expect("ended");
        });
        let (mut from, mut to) = tokio::io::split(&mut client);
        let mut back = Vec::new();
        let (sent, got) = tokio::join!(
            async {
                to.write_all(&pattern).await?;
                to.shutdown().await
            },
            from.read_to_end(&mut back)
        );
        sent.expect("sent");
        got.expect("received to an end that TLS vouches for");
        assert!(back == pattern);
        echo.await.expect("echo");
        let outcome = relay.await.expect("relay");
        assert_eq!(outcome, Outcome { sent: LARGE as u64, received: LARGE as u64, end: End::Closed });
    });
}

#[test]
fn either_end_may_end_first_and_go_on_listening() {
    run_once(async || {
        let Connection { mut client, mut server, relay, .. } = connect().await;
        client.write_all(b"question").await.expect("write");
        client.shutdown().await.expect("close_notify");
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.expect("read");
        assert_eq!(question, b"question");
        server.write_all(b"answer").await.expect("write");
        server.shutdown().await.expect("half-close");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("read");
        assert_eq!(answer, b"answer");
        assert_eq!(relay.await.expect("relay").end, End::Closed);

        let Connection { mut client, mut server, relay, .. } = connect().await;
        server.shutdown().await.expect("half-close");
        assert_eq!(client.read(&mut [0; 8]).await.expect("close_notify"), 0);
        client.write_all(b"more").await.expect("write");
        client.shutdown().await.expect("close_notify");
        let mut more = Vec::new();
        server.read_to_end(&mut more).await.expect("read");
        assert_eq!(more, b"more");
        assert_eq!(relay.await.expect("relay").end, End::Closed);
    });
}

#[test]
fn resets_stay_resets() {
    run_once(async || {
        let Connection { client, mut server, relay, .. } = connect().await;
        reset(client.into_inner().0);
        assert!(is_reset(&server.read(&mut [0; 8]).await));
        assert_eq!(relay.await.expect("relay").end, End::ResetByFar);

        let Connection { mut client, server, relay, .. } = connect().await;
        reset(server);
        assert!(is_reset(&client.read(&mut [0; 8]).await));
        assert_eq!(relay.await.expect("relay").end, End::ResetByApp);
    });
}

#[test]
fn an_end_that_tls_does_not_vouch_for_is_a_reset() {
    run_once(async || {
        let Connection { client, mut server, relay, .. } = connect().await;
        // FIN without close_notify: anybody on the way could have sent it.
        drop(client.into_inner().0);
        assert!(is_reset(&server.read(&mut [0; 8]).await));
        assert_eq!(relay.await.expect("relay").end, End::ResetByFar);
    });
}

#[test]
fn a_sidecar_whose_root_is_retired_is_told_of() {
    run_once(async || {
        let identities = identities(authority(&TrustDomain::default()), Carriers::default());
        let (client, pay) = (of(&identities, "cart").await, of(&identities, "pay").await);
        let (roots, trust) = tokio::sync::watch::channel(pay.peers().clone());
        let server = Server::new(Limits::default(), trust);
        let (near, far) = socket_pair().await;
        let (_client, accepted) = tokio::join!(dial(config(&client, &OFFERED), near), server.accept_sidecar(far, &pay));
        let (sidecar, _tls) = accepted.expect("accepted");
        let ended = spawn_local(async move { sidecar.until_untrusted().await });
        roots.send_replace(Arc::new(mesh_transport::PeerVerifier::of_nobody()));
        assert!(matches!(ended.await.expect("told"), TunnelEnd::Untrusted(_)));
    });
}

/// Why a server of `pay` turns a client with this configuration away.
async fn rejection(pay: &TlsIdentity, trust: &Identities, config: ClientConfig) -> Option<RejectReason> {
    let server = Server::new(Limits::default(), trust.trust());
    let (near, far) = socket_pair().await;
    let (_client, accepted) = tokio::join!(dial(config, near), server.accept_sidecar(far, pay));
    accepted.err().as_ref().and_then(ServeError::reason)
}

#[test]
fn who_cannot_prove_who_it_is_is_turned_away() {
    run_once(async || {
        let ours = identities(authority(&TrustDomain::default()), Carriers::default());
        let theirs = identities(authority(&TrustDomain::default()), Carriers::default());
        let (cart, pay) = (of(&ours, "cart").await, of(&ours, "pay").await);
        let reason = async |config| rejection(&pay, &ours, config).await;
        let named = |mut config: ClientConfig, offered: &[&str]| {
            config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
            config
        };
        let good = config(&cart, &OFFERED);
        assert_eq!(reason(good.clone()).await, None);
        assert_eq!(reason(named(good, &["istio-peer-exchange"])).await, Some(RejectReason::Alpn));
        // Its own root; it would take the server's word.
        let stranger = of(&theirs, "cart").await.with_peers(cart.peers().clone()).expect("identity");
        assert_eq!(reason(config(&stranger, &OFFERED)).await, Some(RejectReason::CertificateUntrusted));
        let nobody = Rc::new(nameless(&cart));
        assert_eq!(reason(ClientConfig::clone(&nobody)).await, Some(RejectReason::CertificateMissing));
    });
}

/// A client without a certificate.
fn nameless(tls: &TlsIdentity) -> ClientConfig {
    let mut config = config(tls, &OFFERED);
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    config
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
