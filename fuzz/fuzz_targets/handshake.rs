//! What a stranger says to the tunnel port before it has proved who it is.
#![no_main]

use std::sync::Arc;
use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use mesh_core::{SpiffeId, TrustDomain};
use mesh_transport::hbone::{ConnectRequest, Server};
use mesh_transport::{CertificateAuthority, Identities, IdentitySettings, Limits, LocalAuthority, TlsIdentity};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::LocalSet;

/// A server with a certificate, and everything to reach it.
struct World {
    runtime: Runtime,
    listener: TcpListener,
    server: Server,
    tls: Arc<TlsIdentity>,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let domain = TrustDomain::default();
        let authority = CertificateAuthority::generate(&domain, SystemTime::now()).expect("authority");
        let authority = Arc::new(LocalAuthority::fixed(authority).expect("usable"));
        let identities = Identities::new(authority, IdentitySettings::new(domain.clone()));
        let identity = SpiffeId::new(&domain, "shop", "cart").expect("identity");
        let tls = runtime.block_on(identities.fetch(&identity)).expect("certificate");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("listener");
        Self { runtime, listener, server: Server::new(Limits::default(), identities.trust()), tls }
    }

    /// Says `bytes` and ends; the server must turn that away and not fall over.
    fn hear(&self, bytes: &[u8]) {
        let served = LocalSet::new().block_on(&self.runtime, async {
            let address = self.listener.local_addr().expect("address");
            let (client, accepted) = tokio::join!(TcpStream::connect(address), self.listener.accept());
            let (mut client, (accepted, _)) = (client.expect("connected"), accepted.expect("accepted"));
            let said = async {
                // The server may have had enough before the end.
                let _ = client.write_all(bytes).await;
                let _ = client.shutdown().await;
            };
            let (_drain, drained) = watch::channel(false);
            let nobody = |_: ConnectRequest| async { unreachable!("a stranger got through") };
            let watch = async |_: &SpiffeId| std::future::pending().await;
            tokio::join!(said, self.server.serve(accepted, &self.tls, drained, watch, nobody, |_| {})).1
        });
        assert!(served.is_err(), "a stranger was served");
    }
}

thread_local! {
    static WORLD: World = World::new();
}

fuzz_target!(|bytes: &[u8]| WORLD.with(|world| world.hear(bytes)));
