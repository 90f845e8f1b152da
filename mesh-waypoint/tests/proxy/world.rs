//! One waypoint, the nodes of its clients and endpoints, and what they are told of the cluster.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use hyper_util::rt::TokioIo;
use mesh_core::{SpiffeId, TrustDomain, WorkloadUid};
use mesh_transport::hbone::{
    Authority, ConnectRequest, Pool, PoolKey, Server, Tunnel, TunnelEnd, TunnelRequest, TunnelStream,
};
use mesh_transport::{
    Carriers, CertificateAuthority, Identities, IdentitySettings, Limits, LocalAuthority, RelayCounters, relay,
};
use nix::sched::{CloneFlags, unshare};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use crate::names::{self, Zone};

/// Far above what any step takes; a test that hangs fails here.
const PATIENCE: Duration = Duration::from_secs(180);
/// The client's pod.
pub(crate) const CLIENT: &str = "10.1.0.1";
/// A pod that no Service of the waypoint has to do with.
pub(crate) const STRANGER: &str = "10.1.0.2";
/// The waypoint's pod.
pub(crate) const WAYPOINT: &str = "10.1.0.9";
/// The endpoints of `cart`: of version v1, and of version v2.
pub(crate) const CARTS: [&str; 3] = ["10.1.0.11", "10.1.0.12", "10.1.0.13"];
/// An endpoint outside the mesh.
pub(crate) const OUTSIDE: &str = "10.1.0.21";

const MANIFESTS: &str = include_str!("cluster.yaml");

/// Everything around the waypoint.
pub(crate) struct World {
    identities: Rc<Identities>,
    pool: Pool,
    waypoint: Option<Child>,
    dir: tempfile::TempDir,
    /// What DNS says.
    pub(crate) names: Zone,
    /// What endpoints' nodes were asked for, and by whom.
    pub(crate) tunnels: Rc<RefCell<Vec<(SpiffeId, String)>>>,
    /// Whether each of those that were let in has its connection to itself.
    pub(crate) direct: Rc<RefCell<Vec<bool>>>,
    /// The `traceparent` of each of these.
    pub(crate) traceparents: Rc<RefCell<Vec<Option<String>>>>,
    /// That of tunnels to the waypoint.
    pub(crate) traceparent: RefCell<Option<String>>,
    pub(crate) log: Arc<std::sync::Mutex<Vec<String>>>,
}

/// The Service whose pod is outside of the mesh, as policies name it.
pub(crate) const OUTSIDE_SERVICE: &str = "{kind: Service, group: '', name: outside}";

/// An AuthorizationPolicy with one rule.
pub(crate) fn authorization(target: &str, action: &str, rule: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: of-test, namespace: shop}}\n\
         spec: {{targetRefs: [{target}], action: {action}, rules: [{rule}]}}\n"
    )
}

/// Runs a test in a network namespace of its own, on a thread of its own.
pub(crate) fn run(test: impl AsyncFnOnce(World) + Send + 'static) {
    run_with("", test);
}

/// The same with further manifests.
pub(crate) fn run_with(manifests: &str, test: impl AsyncFnOnce(World) + Send + 'static) {
    run_as("waypoint", manifests, test);
}

/// The same with further flags of the waypoint.
pub(crate) fn run_with_flags(
    flags: &'static [&'static str],
    manifests: &str,
    test: impl AsyncFnOnce(World) + Send + 'static,
) {
    run_program("waypoint", flags, manifests, test);
}

/// The same where nodes are not ours, and speak HBONE alone: a pod's tunnels to a waypoint share a connection.
pub(crate) fn run_by_hbone(test: impl AsyncFnOnce(World) + Send + 'static) {
    run_by_hbone_with("", test);
}

/// The same with further manifests.
pub(crate) fn run_by_hbone_with(manifests: &str, test: impl AsyncFnOnce(World) + Send + 'static) {
    run_between(Carriers::H2, "waypoint", &[], manifests, test);
}

/// The same for a replica of another Gateway than the waypoint.
pub(crate) fn run_as(gateway: &'static str, manifests: &str, test: impl AsyncFnOnce(World) + Send + 'static) {
    run_program(gateway, &[], manifests, test);
}

/// The same for a replica of that Gateway, with further flags.
pub(crate) fn run_program(
    gateway: &'static str,
    flags: &'static [&'static str],
    manifests: &str,
    test: impl AsyncFnOnce(World) + Send + 'static,
) {
    run_between(Carriers::default(), gateway, flags, manifests, test);
}

/// The same between nodes that have such tunnels.
fn run_between(
    carriers: Carriers,
    gateway: &'static str,
    flags: &'static [&'static str],
    manifests: &str,
    test: impl AsyncFnOnce(World) + Send + 'static,
) {
    let manifests = manifests.to_owned();
    let thread = std::thread::spawn(move || {
        let own = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        unshare(own).expect("namespaces of its own, for which the test has to be root");
        let resolver = names::own_resolver();
        let addresses = [CLIENT, STRANGER, WAYPOINT, OUTSIDE].into_iter().chain(CARTS);
        ip(&["link", "set", "lo", "up"]);
        for address in addresses {
            ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        LocalSet::new().block_on(&runtime, async {
            let steps = async {
                let world = World::start(carriers, gateway, flags, &manifests).await;
                test(world).await;
                drop(resolver);
            };
            tokio::time::timeout(PATIENCE, steps).await.expect("the test hangs");
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in the test's network namespace.
pub(crate) fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("iproute2");
    assert!(status.success(), "ip {}", arguments.join(" "));
}

fn identity(account: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::default(), "shop", account).expect("valid")
}

impl World {
    async fn start(carriers: Carriers, gateway: &str, flags: &[&str], manifests: &str) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let (config, ca) = (dir.path().join("config"), dir.path().join("ca"));
        std::fs::create_dir_all(&config).expect("directory");
        std::fs::create_dir_all(&ca).expect("directory");
        std::fs::write(config.join("cluster.yaml"), MANIFESTS).expect("manifests");
        std::fs::write(config.join("more.yaml"), manifests).expect("manifests");
        let authority = CertificateAuthority::generate(&TrustDomain::default(), SystemTime::now()).expect("authority");
        authority.write(&ca, true).expect("authority's files");
        let settings = IdentitySettings { carriers, ..IdentitySettings::new(TrustDomain::default()) };
        let authority = Arc::new(LocalAuthority::fixed(authority).expect("authority"));
        let identities = Rc::new(Identities::new(authority, settings));
        let pool = Pool::new(Limits::default(), identities.trust());
        let mut world = Self {
            identities,
            pool,
            waypoint: None,
            dir,
            names: names::serve().await,
            tunnels: Rc::default(),
            direct: Rc::default(),
            traceparents: Rc::default(),
            traceparent: RefCell::default(),
            log: Arc::default(),
        };
        for cart in CARTS {
            world.node(cart, "cart").await;
        }
        world.start_waypoint(gateway, flags, &config, &ca).await;
        world
    }

    async fn start_waypoint(&mut self, gateway: &str, flags: &[&str], config: &Path, ca: &Path) {
        let mut waypoint = Command::new(env!("CARGO_BIN_EXE_mesh-waypoint"))
            .args([
                "serve",
                "--name",
                &format!("shop/{gateway}"),
                "--identity",
                &format!("shop/{gateway}"),
                "--workers",
                "2",
            ])
            .args(["--pod", &format!("shop/{gateway}-1")])
            .args(["--listen", &format!("{WAYPOINT}:15008"), "--readiness-addr", &format!("{WAYPOINT}:15021")])
            .arg("--admin-socket")
            .arg(self.dir.path().join("run/waypoint.sock"))
            .args(flags)
            .args(["--metrics-addr", &format!("{WAYPOINT}:15020"), "--dns-refresh", "1"])
            .arg("--config")
            .arg(config)
            .arg("--ca")
            .arg(ca)
            .env("SSL_CERT_FILE", self.roots())
            .stdout(Stdio::piped())
            .spawn()
            .expect("waypoint");
        let lines = BufReader::new(waypoint.stdout.take().expect("piped")).lines();
        self.waypoint = Some(waypoint);
        let (listening, listens) = tokio::sync::oneshot::channel();
        let log = self.log.clone();
        std::thread::spawn(move || {
            let mut listening = Some(listening);
            for line in lines.map_while(Result::ok) {
                if line.contains("waypoint listening")
                    && let Some(listening) = listening.take()
                {
                    let _ = listening.send(());
                }
                log.lock().expect("log").push(line);
            }
        });
        listens.await.expect("the waypoint did not come up");
    }

    /// Replaces the manifests beside the cluster's.
    pub(crate) fn configure(&self, manifests: &str) {
        std::fs::write(self.dir.path().join("config/more.yaml"), manifests).expect("manifests");
    }

    /// Takes an endpoint out of the Services that it is behind.
    pub(crate) fn without_endpoint(&self, address: &str) {
        let is_it = |line: &&str| line.starts_with("- {addresses") && line.contains(address);
        let left: Vec<&str> = MANIFESTS.lines().filter(|line| !is_it(line)).collect();
        std::fs::write(self.dir.path().join("config/cluster.yaml"), left.join("\n")).expect("manifests");
    }

    /// The node of an endpoint.
    async fn node(&self, address: &str, account: &str) {
        let listener = TcpListener::bind((address, 15_008)).await.expect("the tunnel port");
        let server = Server::new(Limits::default(), self.identities.trust());
        let (identities, identity, tunnels) = (self.identities.clone(), identity(account), self.tunnels.clone());
        let (traceparents, direct) = (self.traceparents.clone(), self.direct.clone());
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tls = identities.fetch(&identity).await.expect("certificate");
                let (server, tunnels, traceparents) = (server.clone(), tunnels.clone(), traceparents.clone());
                let direct = direct.clone();
                spawn_local(async move {
                    let handler = |request: ConnectRequest| {
                        traceparents.borrow_mut().push(request.traceparent.clone());
                        tunnels.borrow_mut().push((request.peer.clone(), request.authority.to_string()));
                        carry(request, direct.clone())
                    };
                    let never = tokio::sync::watch::channel(false).1;
                    let _ = server.serve(stream, &tls, never, forever, handler, |_| {}).await;
                });
            }
        });
    }

    /// A tunnel from the client's node to the waypoint, to what is named so.
    pub(crate) async fn tunnel(&self, target: &str) -> Result<TunnelStream, Option<StatusCode>> {
        self.tunnel_from(CLIENT, "client", target).await
    }

    /// The same from any pod.
    pub(crate) async fn tunnel_from(
        &self,
        pod: &str,
        account: &str,
        target: &str,
    ) -> Result<TunnelStream, Option<StatusCode>> {
        let pod: IpAddr = pod.parse().expect("address");
        let peer = SocketAddr::new(WAYPOINT.parse().expect("address"), 15_008);
        let identity = identity(account);
        let tls = self.identities.fetch(&identity).await.expect("certificate");
        let source = WorkloadUid::from(format!("uid-{account}"));
        let key = PoolKey { source, identity, peer, expected: self::identity("waypoint") };
        let request = TunnelRequest {
            authority: Authority::parse(target).expect("a target"),
            forwarded: Some(SocketAddr::new(pod, 40_000)),
            baggage: None,
            traceparent: self.traceparent.borrow().clone(),
        };
        let dial = async || {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(pod, 0))?;
            socket.connect(peer).await
        };
        let tunnel = self.pool.connect(key, &tls, request, dial).await;
        tunnel.map(TunnelStream::from).map_err(|error| error.status())
    }

    /// A directory for the test's own files.
    pub(crate) fn home(&self) -> &Path {
        self.dir.path()
    }

    /// The file of the roots that the waypoint takes for the system's.
    pub(crate) fn roots(&self) -> PathBuf {
        self.dir.path().join("roots.pem")
    }

    /// Waits until the waypoint's log says that.
    pub(crate) async fn logged(&self, text: &str) {
        while !self.log.lock().expect("log").iter().any(|line| line.contains(text)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Tells the waypoint to end; it drains.
    pub(crate) fn terminate(&self) {
        let pid = self.waypoint.as_ref().expect("running").id();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signal");
    }

    /// Resident memory of the waypoint in KiB.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that it has had, in KiB.
    pub(crate) fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, what: &str) -> u64 {
        let pid = self.waypoint.as_ref().expect("running").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process's status");
        let said = status.lines().find_map(|line| line.strip_prefix(what)).expect("its memory");
        said.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Whether the waypoint has ended, and well.
    pub(crate) fn ended(&mut self) -> Option<bool> {
        let waypoint = self.waypoint.as_mut().expect("started");
        waypoint.try_wait().expect("wait").map(|status| status.success())
    }

    /// What the readiness probe says.
    pub(crate) async fn readiness(&self) -> std::io::Result<u16> {
        let stream = TcpStream::connect((WAYPOINT, 15_021)).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        spawn_local(connection);
        let request = http::Request::get("/healthz/ready").header("host", "waypoint").body(String::new());
        let answer = sender.send_request(request.expect("valid")).await.map_err(std::io::Error::other)?;
        Ok(answer.status().as_u16())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut waypoint) = self.waypoint.take() {
            // It may have ended already.
            let _ = waypoint.kill();
            let _ = waypoint.wait();
        }
        if std::thread::panicking() {
            for line in self.log.lock().expect("log").iter() {
                eprintln!("waypoint: {line}");
            }
        }
    }
}

async fn carry(request: ConnectRequest, direct: Rc<RefCell<Vec<bool>>>) {
    let target = request.authority.address().expect("an address");
    match TcpStream::connect(target).await {
        Ok(application) => {
            if let Ok(tunnel) = request.accept().await {
                direct.borrow_mut().push(matches!(tunnel, Tunnel::Direct(_)));
                relay(application, tunnel, &RelayCounters::default()).await;
            }
        }
        Err(_) => request.refuse(StatusCode::SERVICE_UNAVAILABLE).await,
    }
}

async fn forever(_: &SpiffeId) -> TunnelEnd {
    std::future::pending().await
}
