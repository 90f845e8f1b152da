//! The service and its client over real TLS: what is signed, what is refused and how, and what a node learns of trust.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use mesh_ca::{
    Authority, CaService, Caller, CreateCertificateRequest, CreateCertificateResponse, Denial, Gatekeeper, Outcome,
    Outcomes, RemoteSettings, SERVER_NAME, ServerIdentity, serve,
};
use mesh_core::{NodeName, SpiffeId, TrustDomain};
use mesh_transport::ca::rotation;
use mesh_transport::csr::NewKey;
use mesh_transport::{
    CertificateAuthority, Identities, IdentitySettings, LocalAuthority, PeerVerifier, Role, SignError, identity_of,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

const TOKEN: &str = "the-token-of-node-a";
const PROXY_TOKEN: &str = "the-token-of-a-waypoint";
const PATIENCE: Duration = Duration::from_secs(30);

/// Node a runs cart, node b runs pay; a waypoint runs by itself.
struct Two;

impl Gatekeeper for Two {
    async fn authenticate(&self, token: &str) -> Result<Caller, Denial> {
        match token {
            TOKEN => Ok(Caller::Node(NodeName::from("a"))),
            PROXY_TOKEN => Ok(Caller::Proxy(account("waypoint"))),
            _ => Err(Denial::UnknownCaller),
        }
    }

    async fn placed(&self, node: &NodeName, identity: &SpiffeId) -> Result<(), Denial> {
        if *identity == account("cart") {
            Ok(())
        } else {
            Err(Denial::NotPlaced { identity: identity.clone(), node: node.clone() })
        }
    }
}

fn account(name: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::default(), "shop", name).expect("valid")
}

struct World {
    dir: TempDir,
    address: SocketAddr,
    authority: Arc<LocalAuthority>,
    outcomes: Arc<Outcomes>,
    server: Process,
}

/// A server on a thread and a runtime of its own: when it ends, so do its connections.
struct Process(Option<(oneshot::Sender<()>, JoinHandle<()>)>);

impl Process {
    fn start(listener: std::net::TcpListener, authority: Arc<LocalAuthority>, service: CaService<Two>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("registered");
                tokio::select! {
                    () = run(listener, authority, service) => {}
                    _ = stopped => {}
                }
            });
        });
        Self(Some((stop, thread)))
    }

    fn end(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            let _ = stop.send(());
            thread.join().expect("the server did not panic");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn listen(address: SocketAddr) -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind(address).expect("listener");
    listener.set_nonblocking(true).expect("non-blocking");
    listener
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let now = SystemTime::now();
        let authority = CertificateAuthority::generate(&TrustDomain::default(), now).expect("authority");
        authority.write(&dir.path().join("ca"), false).expect("written");
        std::fs::copy(dir.path().join("ca/root-cert.pem"), dir.path().join("root.pem")).expect("copied");
        std::fs::write(dir.path().join("token"), TOKEN).expect("written");
        let authority = Arc::new(LocalAuthority::open(&dir.path().join("ca"), now).expect("opened"));
        let listener = listen(([127, 0, 0, 1], 0).into());
        let address = listener.local_addr().expect("address");
        let service = CaService::new(authority.clone(), Two, TrustDomain::default(), Duration::from_secs(3600));
        let outcomes = service.outcomes();
        let server = Process::start(listener, authority.clone(), service);
        Self { dir, address, authority, outcomes, server }
    }

    fn path(&self, file: &str) -> std::path::PathBuf {
        self.dir.path().join(file)
    }

    fn settings(&self) -> RemoteSettings {
        RemoteSettings {
            address: self.address.to_string(),
            name: SERVER_NAME.to_owned(),
            root: self.path("root.pem"),
            token: self.path("token"),
        }
    }

    fn remote(&self) -> Authority {
        Authority::remote(&self.settings()).expect("files")
    }

    fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.count(outcome)
    }
}

async fn run(listener: TcpListener, authority: Arc<LocalAuthority>, service: CaService<Two>) {
    let identity = ServerIdentity::new(authority.clone(), SERVER_NAME).expect("certificate");
    tokio::select! {
        ended = serve(listener, identity, service) => ended.expect("serves"),
        () = authority.follow() => {}
    }
}

async fn sign(remote: &Authority, csr: &str, identity: &SpiffeId) -> Result<usize, SignError> {
    remote.source().sign(csr, identity, Duration::from_secs(600)).await.map(|signed| signed.chain.len())
}

#[tokio::test]
async fn a_node_gets_a_certificate_that_verifies_for_a_pod_of_its_own() {
    let world = World::new().await;
    let remote = world.remote();
    let identities = Identities::new(remote.source(), IdentitySettings::new(TrustDomain::default()));
    let held = identities.fetch(&account("cart")).await.expect("certificate");
    assert_eq!(identity_of(&held.chain()[0]).expect("identity"), account("cart"));
    let judge = PeerVerifier::new(world.authority.current().trust().clone()).expect("roots");
    judge.verify_chain(Role::Client, &held.chain()[0], &held.chain()[1..], SystemTime::now()).expect("verifies");
    let life = held.not_after.duration_since(SystemTime::now()).expect("ahead");
    assert!(life <= Duration::from_secs(3600), "the CA's longest life counts: {life:?}");
    assert_eq!(world.count(Outcome::Signed), 1);
}

#[tokio::test]
async fn a_proxy_gets_a_certificate_for_itself() {
    let world = World::new().await;
    std::fs::write(world.path("token"), PROXY_TOKEN).expect("written");
    let own = account("waypoint");
    let csr = NewKey::generate(&own).expect("key").request;
    assert!(sign(&world.remote(), &csr, &own).await.is_ok());
    assert_eq!(world.count(Outcome::Signed), 1);
}

#[tokio::test]
async fn each_refusal_has_its_status_its_reason_and_its_count() {
    let world = World::new().await;
    let good = NewKey::generate(&account("cart")).expect("key").request;
    let other = NewKey::generate(&account("pay")).expect("key").request;
    let request = |csr: &str, identity: &str| CreateCertificateRequest::new(csr.to_owned(), identity, 600);
    let cart = account("cart").to_string();
    let foreign = "spiffe://other.example/ns/shop/sa/cart";
    let cases = [
        (request(&good, &cart), "wrong-token", Code::Unauthenticated, "bearer token", Outcome::Unauthenticated),
        (request(&good, &cart), "", Code::Unauthenticated, "Bearer TOKEN", Outcome::Unauthenticated),
        (request(&other, account("pay").as_str()), TOKEN, Code::PermissionDenied, "placed on node a", Outcome::Denied),
        (request(&good, &cart), PROXY_TOKEN, Code::PermissionDenied, "proxy spiffe://", Outcome::Denied),
        (request(&good, foreign), TOKEN, Code::PermissionDenied, "trust domain", Outcome::Denied),
        (request(&other, &cart), TOKEN, Code::InvalidArgument, "names spiffe://", Outcome::Invalid),
        (request("nonsense", &cart), TOKEN, Code::InvalidArgument, "PEM", Outcome::Invalid),
        (request(&good, "cart"), TOKEN, Code::InvalidArgument, "not of the form", Outcome::Invalid),
        (
            CreateCertificateRequest { metadata: None, ..request(&good, &cart) },
            TOKEN,
            Code::InvalidArgument,
            "ImpersonatedIdentity",
            Outcome::Invalid,
        ),
        (
            CreateCertificateRequest { validity_duration: -1, ..request(&good, &cart) },
            TOKEN,
            Code::InvalidArgument,
            "validity_duration",
            Outcome::Invalid,
        ),
    ];
    for (message, token, code, text, outcome) in cases {
        let before = world.count(outcome);
        let status = call(&world, message, token).await.expect_err(text);
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{text}: {status}");
        assert_eq!(world.count(outcome), before + 1, "{text}");
    }
    assert_eq!(world.count(Outcome::Signed), 0);
    let huge = request(&"x".repeat(1 << 20), &cart);
    assert!(call(&world, huge, TOKEN).await.is_err());
    call(&world, request(&good, &cart), TOKEN).await.expect("the server is unhurt");
}

/// A client that says what it likes, over TLS as a node's.
async fn call(
    world: &World,
    message: CreateCertificateRequest,
    token: &str,
) -> Result<CreateCertificateResponse, Status> {
    let channel = plain_channel(&world.path("root.pem"), world.address).await;
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.expect("connected");
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("ASCII"));
    }
    let path = PathAndQuery::from_static("/istio.v1.auth.IstioCertificateService/CreateCertificate");
    let codec = ProstCodec::<CreateCertificateRequest, CreateCertificateResponse>::default();
    grpc.unary(request, path, codec).await.map(tonic::Response::into_inner)
}

async fn plain_channel(root: &Path, address: SocketAddr) -> tonic::transport::Channel {
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(root).expect("root");
    for root in rustls_pki_types::CertificateDer::pem_slice_iter(&pem) {
        roots.add(root.expect("PEM")).expect("root");
    }
    let mut config = rustls::ClientConfig::builder_with_provider(mesh_transport::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    tonic::transport::Endpoint::from_static("https://ca")
        .connect_with_connector(tower::service_fn(move |_| {
            let config = config.clone();
            async move {
                let stream = tokio::net::TcpStream::connect(address).await?;
                let name = SERVER_NAME.try_into().expect("a DNS name");
                let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        }))
        .await
        .expect("connected")
}

#[tokio::test]
async fn a_server_that_is_not_the_ca_gets_no_token() {
    let world = World::new().await;
    let other = CertificateAuthority::generate(&TrustDomain::default(), SystemTime::now()).expect("authority");
    other.write(&world.path("other"), false).expect("written");
    let csr = NewKey::generate(&account("cart")).expect("key").request;
    let wrong_root = RemoteSettings { root: world.path("other/root-cert.pem"), ..world.settings() };
    let wrong_name = RemoteSettings { name: "other.example".to_owned(), ..world.settings() };
    for settings in [wrong_root, wrong_name] {
        let remote = Authority::remote(&settings).expect("files");
        let error = sign(&remote, &csr, &account("cart")).await.expect_err("refused");
        assert!(matches!(&error, SignError::Unreachable { problem, .. } if problem.contains("certificate")), "{error}");
    }
    assert_eq!(world.count(Outcome::Signed) + world.count(Outcome::Unauthenticated), 0);
}

#[tokio::test]
async fn a_ca_that_is_away_is_unreachable_and_then_back() {
    let mut world = World::new().await;
    let remote = world.remote();
    let csr = NewKey::generate(&account("cart")).expect("key").request;
    sign(&remote, &csr, &account("cart")).await.expect("signed");
    world.server.end();
    let away = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Err(error) = sign(&remote, &csr, &account("cart")).await {
                return error;
            }
        }
    });
    let away = away.await.expect("noticed");
    assert!(matches!(away, SignError::Unreachable { .. }), "{away}");
    let service = CaService::new(world.authority.clone(), Two, TrustDomain::default(), Duration::from_secs(3600));
    world.server = Process::start(listen(world.address), world.authority.clone(), service);
    let back = tokio::time::timeout(PATIENCE, async {
        while sign(&remote, &csr, &account("cart")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    back.await.expect("back");
}

#[tokio::test]
async fn nodes_learn_of_roots_and_revocations_as_they_come_and_follow_the_cas_own_root() {
    let world = World::new().await;
    let remote = world.remote();
    let mut trust = remote.source().trust();
    let following = tokio::spawn({
        let remote = remote.clone();
        async move { remote.follow().await }
    });
    let ca = world.path("ca");
    let wait = async |trust: &mut mesh_transport::TrustFeed, what: &dyn Fn(&PeerVerifier) -> bool| {
        let waiting = trust.wait_for(|judge| what(judge));
        tokio::time::timeout(PATIENCE, waiting).await.expect("in time").expect("a source");
    };
    wait(&mut trust, &|judge| judge.bundle().roots.len() == 1).await;
    rotation::add(&ca, &TrustDomain::default(), SystemTime::now()).expect("added");
    wait(&mut trust, &|judge| judge.bundle().roots.len() == 2).await;
    rotation::switch(&ca, SystemTime::now()).expect("switched");
    let signer = CertificateAuthority::load(&ca, SystemTime::now()).expect("whole").signer();
    wait(&mut trust, &|judge| judge.bundle().signer == Some(signer)).await;
    let authority = CertificateAuthority::load(&ca, SystemTime::now()).expect("whole");
    authority.revoke(&ca, &["4a4b".to_owned()], SystemTime::now()).expect("revoked");
    wait(&mut trust, &|judge| judge.bundle().crls.len() == 1).await;
    rotation::retire(&ca, Duration::ZERO, true, SystemTime::now()).expect("retired");
    wait(&mut trust, &|judge| judge.bundle().roots.len() == 1).await;
    // The file still has the old root alone; what the CA told of is enough for a new connection.
    let csr = NewKey::generate(&account("cart")).expect("key").request;
    sign(&remote, &csr, &account("cart")).await.expect("signed");
    following.abort();
}
