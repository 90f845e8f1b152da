//! Connections to a sidecar of Istio's: mutual TLS at the application's port, in which the bytes are the application's own.

use std::sync::Arc;
use std::time::SystemTime;

use mesh_core::{SpiffeId, TrustDomain};
use mesh_transport::hbone::ConnectError;
use mesh_transport::sidecar::{Content, SidecarTls};
use mesh_transport::{Carriers, CertificateAuthority, End, Limits, Outcome, RelayCounters, TlsIdentity, relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::world::{identities, identity, is_reset, reset, run_once, socket_pair};

const LARGE: usize = 3_000_000;

/// Both ends of a connection through a node to a sidecar, and what the node says of it.
struct Connected {
    client: TcpStream,
    sidecar: TlsStream<TcpStream>,
    relay: JoinHandle<Outcome>,
}

/// The certificates of one mesh, `cart`'s and `pay`'s.
async fn pair() -> (Arc<TlsIdentity>, Arc<TlsIdentity>) {
    let authority = CertificateAuthority::generate(&TrustDomain::default(), SystemTime::now()).expect("authority");
    let all = identities(authority, Carriers::DirectOrH2);
    let of = async |account| all.fetch(&identity(account)).await.expect("identity");
    (of("cart").await, of("pay").await)
}

/// A sidecar that shows `tls`, and chooses none of the protocols that it is offered, as Envoy does then.
fn sidecar(tls: &TlsIdentity) -> TlsAcceptor {
    let mut config = (*tls.server).clone();
    config.alpn_protocols.clear();
    TlsAcceptor::from(Arc::new(config))
}

async fn shake_hands(
    cart: &TlsIdentity,
    there: &TlsIdentity,
    expected: &SpiffeId,
) -> (Result<SidecarTls, ConnectError>, std::io::Result<TlsStream<TcpStream>>) {
    let (near, far) = socket_pair().await;
    let peer = near.peer_addr().expect("address");
    let limits = Limits::default();
    let connect = SidecarTls::connect(near, cart, (peer, expected), Content::Bytes, &limits);
    tokio::join!(connect, sidecar(there).accept(far))
}

async fn connected() -> Connected {
    let (cart, pay) = pair().await;
    let (far, sidecar) = shake_hands(&cart, &pay, &pay.identity).await;
    let (far, sidecar) = (far.expect("connected"), sidecar.expect("accepted"));
    let (client, app) = socket_pair().await;
    let relay = spawn_local(async move { relay(app, far, &RelayCounters::default()).await });
    Connected { client, sidecar, relay }
}

#[test]
fn bytes_arrive_and_each_side_may_end_first() {
    run_once(async || {
        for client_first in [true, false] {
            let Connected { mut client, mut sidecar, relay } = connected().await;
            let sent: Vec<u8> = (0..LARGE).map(|at| (at % 251) as u8).collect();
            let mut got = Vec::new();
            if client_first {
                let write = async {
                    client.write_all(&sent).await.expect("write");
                    client.shutdown().await.expect("half-close");
                };
                let ((), read) = tokio::join!(write, sidecar.read_to_end(&mut got));
                read.expect("read");
                assert!(got == sent);
                sidecar.write_all(b"thanks").await.expect("the sidecar still sends");
                sidecar.shutdown().await.expect("shutdown");
                let mut thanks = String::new();
                client.read_to_string(&mut thanks).await.expect("read");
                assert_eq!(thanks, "thanks");
            } else {
                let write = async {
                    sidecar.write_all(&sent).await.expect("write");
                    sidecar.get_mut().1.send_close_notify();
                    sidecar.flush().await.expect("close_notify");
                };
                let ((), read) = tokio::join!(write, client.read_to_end(&mut got));
                read.expect("read");
                assert!(got == sent);
                client.write_all(b"thanks").await.expect("the client still sends");
                drop(client);
                let mut thanks = String::new();
                sidecar.read_to_string(&mut thanks).await.expect("read");
                assert_eq!(thanks, "thanks");
            }
            let outcome = relay.await.expect("relay");
            let (up, down) = if client_first { (LARGE, 6) } else { (6, LARGE) };
            assert_eq!((outcome.end, outcome.sent, outcome.received), (End::Closed, up as u64, down as u64));
        }
    });
}

#[test]
fn resets_stay_resets() {
    run_once(async || {
        let Connected { mut client, mut sidecar, relay } = connected().await;
        client.write_all(b"x").await.expect("write");
        sidecar.read_u8().await.expect("read");
        reset(client);
        assert!(is_reset(&sidecar.read(&mut [0; 8]).await));
        assert_eq!(relay.await.expect("relay").end, End::ResetByApp);

        let Connected { mut client, sidecar, relay } = connected().await;
        reset(sidecar.into_inner().0);
        assert!(is_reset(&client.read(&mut [0; 8]).await));
        assert_eq!(relay.await.expect("relay").end, End::ResetByFar);
    });
}

#[test]
fn an_end_without_close_notify_is_none() {
    run_once(async || {
        let Connected { mut client, mut sidecar, relay } = connected().await;
        sidecar.write_all(b"half a stream").await.expect("write");
        sidecar.flush().await.expect("flush");
        sidecar.get_mut().0.shutdown().await.expect("FIN alone");
        let mut got = Vec::new();
        assert!(is_reset(&client.read_to_end(&mut got).await), "{got:?}");
        assert_eq!(relay.await.expect("relay").end, End::ResetByFar);
    });
}

#[test]
fn nobody_else_may_be_there() {
    run_once(async || {
        let (cart, pay) = pair().await;
        let (far, _) = shake_hands(&cart, &pay, &identity("bank")).await;
        let error = far.expect_err("pay is not bank");
        assert!(matches!(error, ConnectError::Tls { .. }) && error.reason().is_some(), "{error}");
        // One of another authority.
        let (_, stranger) = pair().await;
        let (far, _) = shake_hands(&cart, &stranger, &stranger.identity).await;
        assert!(matches!(far.expect_err("another authority"), ConnectError::Tls { .. }));
    });
}
