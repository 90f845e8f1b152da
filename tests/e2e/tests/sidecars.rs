//! Istio's sidecars, outside the mesh: Envoy begins mutual TLS at an enrolled pod's own ports, and is judged by who it is.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result, ensure};
use mesh_e2e::{
    Connect, Held, Mesh, NAMESPACE, Offer, PATIENCE, Sidecar, Verdict, Waypoint, inside, port, server, traffic,
};
use mesh_lab::{Place, Pod, ServiceSpec, wait_until};
use serde_json::Value;

const LEGACY: &str = "spiffe://cluster.local/ns/legacy/sa/legacy";
/// The ports that a sidecar carries to.
const PORTS: [u16; 3] = [port::ECHO, port::REPORT_PEER, port::STREAM];

/// An enrolled server on the second node.
struct Scene {
    mesh: Mesh,
    server: Pod,
}

impl Scene {
    fn start() -> Result<Self> {
        let mesh = Mesh::start()?;
        let server = mesh.join(server("server", "node-b"))?;
        Ok(Self { mesh, server })
    }

    /// A sidecar with a certificate of the mesh's own authority.
    fn sidecar(&self, name: &str) -> Result<Sidecar> {
        let identity = format!("spiffe://cluster.local/ns/legacy/sa/{name}");
        let signed_by = self.mesh.lab.ca_dir()?;
        self.offering(name, &Offer { identity: &identity, signed_by: &signed_by, protocols: &Offer::TCP })
    }

    fn offering(&self, name: &str, offer: &Offer<'_>) -> Result<Sidecar> {
        let sidecar = Sidecar::start(&self.mesh, name, offer, &self.server, &PORTS)?;
        self.mesh.settle()?;
        Ok(sidecar)
    }

    fn apply(&self, text: &str) -> Result<()> {
        self.mesh.lab.apply("policy.yaml", text)?;
        self.mesh.settle()
    }

    fn strict(&self) -> Result<()> {
        self.apply(&peer_authentication("STRICT"))
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.server.ipv4(), port)
    }

    /// How often the server's daemon has turned sidecars, and tunnels, away for this reason.
    fn rejected(&self, reason: &str) -> Result<f64> {
        Ok(self.mesh.metrics("node-b")?.sum("mesh_tunnels_rejected_total", &[("reason", reason)]))
    }

    /// The lines of the server's daemon, which are of connections into the pod, once there are so many.
    fn told(&self, count: usize) -> Result<Vec<Value>> {
        self.mesh.told("node-b", count)
    }
}

fn peer_authentication(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{name: default, namespace: app}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

fn authorization(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: policy, namespace: app}}\nspec: {spec}\n"
    )
}

fn refused(place: &impl Place, to: SocketAddr) -> Result<()> {
    let answer = Connect::to(to).run(place)?;
    // A sidecar accepts before it has connected, and may end as it likes.
    ensure!(answer.outcome != "ok" && answer.outcome != "timeout", "{to} from {:?}: {answer:?}", place.addresses());
    Ok(())
}

#[test]
fn a_sidecar_is_served_under_strict_as_the_workload_that_it_is() -> Verdict {
    let scene = Scene::start()?;
    scene.strict()?;
    let legacy = scene.sidecar("legacy")?;
    let outside = scene.mesh.lab.outside("outside")?;
    Connect::to(Sidecar::entrance(0)).answered(&legacy.pod)?;
    refused(&outside, scene.at(port::ECHO))?;
    let told = scene.told(2)?;
    assert_eq!(told[0]["security"], "mutual_tls", "{}", told[0]);
    assert_eq!(told[0]["source_principal"], LEGACY, "{}", told[0]);
    assert_eq!(told[1]["end"], "plaintext_under_strict", "{}", told[1]);
    let labels = [
        ("reporter", "destination"),
        ("source_principal", LEGACY),
        ("source_workload", "legacy"),
        ("destination_workload", "server"),
        ("connection_security_policy", "mutual_tls"),
    ];
    assert_eq!(scene.mesh.metrics("node-b")?.sum("istio_tcp_connections_opened_total", &labels), 1.0);

    // The application speaks first, and sees the sidecar's own address.
    let answer = Connect::to(Sidecar::entrance(1)).silent().answered(&legacy.pod)?;
    assert_eq!(answer.seen_by_server()?.0.ip(), legacy.pod.ipv4());
    // Every byte, both ways, and each direction's end.
    let sent = traffic(&legacy.pod, "send", Sidecar::entrance(2), &["--bytes", "3000001", "--both-ways"])?;
    assert_eq!(sent["received"], 3_000_001, "{sent}");
    Ok(())
}

#[test]
fn policies_judge_a_sidecar_by_its_principal() -> Verdict {
    let scene = Scene::start()?;
    let (legacy, other) = (scene.sidecar("legacy")?, scene.sidecar("other")?);
    let to = Sidecar::entrance(0);
    let mut held = [Held::open(&legacy.pod, to)?, Held::open(&other.pod, to)?];
    held.iter_mut().try_for_each(|held| held.says("before"))?;
    scene.apply(&authorization(
        "{selector: {matchLabels: {app: server}}, rules: [{from: [{source: {principals: [cluster.local/ns/legacy/sa/legacy]}}]}]}",
    ))?;
    let [mut allowed, denied] = held;
    assert_ne!(denied.ends()?, "ok", "what is open is judged again");
    allowed.says("after")?;
    allowed.close()?;
    Connect::to(to).answered(&legacy.pod)?;
    refused(&other.pod, to)?;
    // An address is nobody: neither the sidecar's own nor any other.
    refused(&legacy.pod, scene.at(port::ECHO))?;
    let told = wait_until("two denials and a cut", PATIENCE, || {
        let lines = mesh_e2e::connections(scene.mesh.daemon("node-b")?);
        let denied: Vec<_> = lines.into_iter().filter(|line| line["end"] == "policy_denied").collect();
        Ok((denied.len() >= 3).then_some(denied))
    })?;
    let of = |security: &str| told.iter().filter(|line| line["security"] == security).count();
    assert_eq!((of("mutual_tls"), of("none")), (2, 1), "{told:?}");
    let labels = [("policy", "AuthorizationPolicy app/policy"), ("result", "denied")];
    assert_eq!(scene.mesh.metrics("node-b")?.sum("mesh_policy_decisions_total", &labels), 2.0, "each is judged once");
    Ok(())
}

#[test]
fn a_sidecar_that_cannot_prove_who_it_is_is_refused_and_counted() -> Verdict {
    let scene = Scene::start()?;
    let (ours, theirs) = (scene.mesh.lab.ca_dir()?, scene.mesh.lab.ca_dir_of("other-ca", "cluster.local")?);
    let foreign = "spiffe://elsewhere.example/ns/legacy/sa/legacy";
    for (name, identity, signed_by, protocols, reason) in [
        ("untrusted", LEGACY, &theirs, &Offer::TCP[..], "certificate_untrusted"),
        ("foreign", foreign, &ours, &Offer::TCP[..], "trust_domain"),
        ("talkative", LEGACY, &ours, &["istio-peer-exchange"][..], "alpn"),
    ] {
        let sidecar = scene.offering(name, &Offer { identity, signed_by, protocols })?;
        refused(&sidecar.pod, Sidecar::entrance(0))?;
        assert!(scene.rejected(reason)? >= 1.0, "{name}: {reason}");
    }
    assert!(mesh_e2e::connections(scene.mesh.daemon("node-b")?).is_empty(), "the application heard of none of them");
    Ok(())
}

/// A policy that a waypoint alone can judge.
const AT_WAYPOINT: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: clients, namespace: app}
spec:
  targetRefs: [{group: '', kind: Service, name: server}]
  rules: [{from: [{source: {principals: [cluster.local/ns/legacy/sa/legacy]}}]}]
";

#[test]
fn a_sidecar_does_not_go_around_a_waypoint() -> Verdict {
    let scene = Scene::start()?;
    let spec = ServiceSpec::new("app", "server").select("app", "server").port("tcp", 80, port::ECHO);
    scene.mesh.lab.service(spec)?;
    let waypoint = Waypoint::declare_in(&scene.mesh, NAMESPACE, "waypoint")?;
    waypoint.replica(&scene.mesh, "waypoint-1", "node-b")?;
    waypoint.serve_namespace(&scene.mesh)?;
    let legacy = scene.sidecar("legacy")?;
    Connect::to(Sidecar::entrance(0)).answered(&legacy.pod)?;
    scene.apply(AT_WAYPOINT)?;
    refused(&legacy.pod, Sidecar::entrance(0))?;
    Connect::to(Sidecar::entrance(1)).silent().answered(&legacy.pod)?;
    let told = scene.told(3)?;
    assert_eq!(told[1]["source_principal"], LEGACY, "{}", told[1]);
    assert_eq!(told[1]["end"], "policy_denied", "{}", told[1]);
    Ok(())
}

/// A ClientHello of TLS 1.3 that offers this protocol (RFC 8446, section 4.1.2).
fn hello(protocol: &str) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&[0, u8::try_from(bytes.len()).expect("short")], bytes].concat();
    let name = [&[u8::try_from(protocol.len()).expect("short")], protocol.as_bytes()].concat();
    let extension = |kind: u8, content: &[u8]| [&[0, kind], &*sized(content)].concat();
    let extensions = [
        // Groups: X25519; signatures: ECDSA with P-256; protocols; versions; a key share.
        extension(10, &[0, 2, 0, 29]),
        extension(13, &[0, 2, 4, 3]),
        extension(16, &sized(&name)),
        extension(43, &[2, 3, 4]),
        extension(51, &[&[0, 36, 0, 29, 0, 32][..], &[9; 32]].concat()),
    ]
    .concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 0x01], &[1, 0], &sized(&extensions)].concat();
    let message = [&[1, 0], &*sized(&body)].concat();
    [&[22, 3, 1], &*sized(&message)].concat()
}

#[test]
fn an_applications_own_tls_and_plaintext_are_what_they_were() -> Verdict {
    let scene = Scene::start()?;
    let outside = scene.mesh.lab.outside("outside")?;
    let to = scene.at(port::ECHO);
    let said_back = |bytes: &[u8]| {
        inside(&outside, || {
            let mut stream = TcpStream::connect(to).context("connecting")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            // In two pieces, neither of which is a message.
            let (first, second) = bytes.split_at(bytes.len() / 2);
            stream.set_nodelay(true)?;
            stream.write_all(first)?;
            stream.write_all(second)?;
            let mut back = vec![0; bytes.len()];
            stream.read_exact(&mut back).context("reading what comes back")?;
            Ok(back)
        })
    };
    let own = hello("h2");
    assert_eq!(said_back(&own)?, own, "the application has it, and answers it");
    // Whoever offers Istio's is answered by the daemon: an alert or a ServerHello.
    let answer = said_back(&hello("istio"))?;
    assert_ne!(answer, hello("istio"));
    assert!([21, 22].contains(&answer[0]), "{answer:?}");
    // Half a message and no more is the application's, once it is clear that nothing follows.
    let half = &own[..own.len() / 2];
    assert_eq!(said_back(half)?, half);
    // The application speaks first.
    Connect::to(scene.at(port::REPORT_PEER)).silent().answered(&outside)?;
    Ok(())
}

#[test]
fn an_application_that_speaks_first_greets_those_with_and_without_tls() -> Verdict {
    let scene = Scene::start()?;
    let legacy = scene.sidecar("legacy")?;
    for _ in 0..10 {
        Connect::to(Sidecar::entrance(1)).silent().answered(&legacy.pod)?;
    }
    // The same pod without its sidecar: it is greeted, although it might have begun TLS.
    Connect::to(scene.at(port::REPORT_PEER)).silent().answered(&legacy.pod)?;
    let told = scene.told(11)?;
    let of = |security: &str| told.iter().filter(|line| line["security"] == security).count();
    assert_eq!((of("mutual_tls"), of("none")), (10, 1), "{told:?}");
    Ok(())
}
