//! What a connection through the mesh costs while nothing happens on it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use mesh_core::{SpiffeId, TrustDomain, WorkloadUid};
use mesh_transport::hbone::{Pool, PoolKey, Server, TunnelRequest};
use mesh_transport::{
    Carriers, CertificateAuthority, Identities, IdentitySettings, Limits, LocalAuthority, RelayCounters, relay,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONNECTIONS: usize = 200;

/// Bytes on the heap that one connection adds on both nodes together, after it carried something and fell silent.
async fn bytes_a_connection(carriers: Carriers) -> usize {
    let domain = TrustDomain::default();
    let account = |name| SpiffeId::new(&domain, "shop", name).expect("valid");
    let authority = CertificateAuthority::generate(&domain, SystemTime::now()).expect("authority");
    let source = Arc::new(LocalAuthority::fixed(authority).expect("usable"));
    let settings = IdentitySettings { carriers, ..IdentitySettings::new(domain.clone()) };
    let identities = Identities::new(source, settings);
    let (cart, pay) = (identities.fetch(&account("cart")).await, identities.fetch(&account("pay")).await);
    let (cart, pay) = (cart.expect("identity"), pay.expect("identity"));
    let (mesh, backend, clients) = (listen().await, listen().await, listen().await);
    let (peer, authority) = (address(&mesh), address(&backend));
    let drain = Rc::new(watch::Sender::new(false));
    let server = Server::new(Limits::default(), identities.trust());
    let draining = drain.clone();
    spawn_local(async move {
        while let Ok((stream, _)) = mesh.accept().await {
            let (server, tls, drain) = (server.clone(), pay.clone(), draining.subscribe());
            spawn_local(async move {
                let handler = |request: mesh_transport::hbone::ConnectRequest| async move {
                    let app =
                        TcpStream::connect(request.authority.address().expect("an address")).await.expect("backend");
                    let tunnel = request.accept().await.expect("accepted");
                    relay(app, tunnel, &RelayCounters::default()).await;
                };
                let _ =
                    server.serve(stream, &tls, drain, async |_| std::future::pending().await, handler, |_| {}).await;
            });
        }
    });
    let pool = Pool::new(Limits::default(), identities.trust());
    let mut ends = Vec::with_capacity(2 * CONNECTIONS + 2);
    let mut before = 0;
    for number in 0..=CONNECTIONS {
        // The first connection pays for what all share.
        if number == 1 {
            before = ALLOCATED.load(Ordering::Relaxed);
        }
        let request = TunnelRequest { authority: authority.into(), forwarded: None, baggage: None, traceparent: None };
        let key =
            PoolKey { source: WorkloadUid::from("uid"), identity: account("cart"), peer, expected: account("pay") };
        let dialled = Box::pin(pool.connect(key, &cart, request, async || TcpStream::connect(peer).await));
        let (tunnel, accepted) = tokio::join!(dialled, backend.accept());
        let to = address(&clients);
        let (client, app) = tokio::join!(TcpStream::connect(to), clients.accept());
        let (tunnel, app) = (tunnel.expect("tunnel"), app.expect("accept").0);
        spawn_local(async move {
            relay(app, tunnel, &RelayCounters::default()).await;
        });
        let (mut client, mut far) = (client.expect("connect"), accepted.expect("accept").0);
        exchange(&mut client, &mut far).await;
        exchange(&mut far, &mut client).await;
        ends.extend([client, far]);
    }
    (ALLOCATED.load(Ordering::Relaxed) - before) / CONNECTIONS
}

async fn exchange(from: &mut TcpStream, to: &mut TcpStream) {
    let bytes = vec![7; 100_000];
    let mut got = vec![0; bytes.len()];
    let (sent, read) = tokio::join!(from.write_all(&bytes), to.read_exact(&mut got));
    sent.expect("sent");
    read.expect("read");
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("listen")
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("address")
}

#[test]
fn an_idle_connection_costs_less_than_20_kib_a_node() {
    for carriers in [Carriers::DirectOrH2, Carriers::H2] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let bytes = LocalSet::new().block_on(&runtime, bytes_a_connection(carriers));
        println!("{carriers:?}: {bytes} bytes on both nodes together");
        assert!(bytes < 2 * 20 * 1024, "{carriers:?}: {bytes} bytes on both nodes together");
    }
}
