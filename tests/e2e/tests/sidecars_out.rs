//! Enrolled pods towards Istio's sidecars: Envoy takes mutual TLS at its pod's ports, and nothing else.

use std::net::SocketAddr;

use anyhow::Result;
use mesh_e2e::{
    Connect, Mesh, Offer, PATIENCE, Served, Sidecar, Taken, Verdict, Waypoint, client, ctl_json, port, traffic,
};
use mesh_lab::{Place as _, ServiceSpec, wait_until};

const LEGACY: &str = "spiffe://cluster.local/ns/legacy/sa/legacy";
const HTTP: u16 = 7080;
const PORTS: [Served; 4] = [
    (9201, Taken::Tcp, port::ECHO),
    (9202, Taken::Tcp, port::REPORT_PEER),
    (9203, Taken::Tcp, port::STREAM),
    (9204, Taken::Http, HTTP),
];

/// A pod with a sidecar that admits this principal alone.
fn admitting(mesh: &Mesh, admitted: &str) -> Result<Sidecar> {
    let signed_by = mesh.lab.ca_dir()?;
    let offer = Offer { identity: LEGACY, signed_by: &signed_by, protocols: &Offer::SERVED };
    Sidecar::serve(mesh, "legacy", &offer, admitted, &PORTS)
}

#[test]
fn a_pod_speaks_to_a_sidecar_by_its_mutual_tls_as_who_it_is() -> Verdict {
    let mesh = Mesh::start()?;
    let [client, other] = [mesh.join(client("client", "node-a"))?, mesh.join(client("other", "node-b"))?];
    let legacy = admitting(&mesh, "spiffe://cluster.local/ns/app/sa/client")?;
    let spec = ServiceSpec::new("legacy", "legacy").select("app", "legacy").port("tcp", 80, 9201);
    let service = mesh.lab.service(spec)?;
    mesh.settle()?;
    let at = |port| SocketAddr::new(legacy.pod.ipv4(), port);
    for to in [at(9201), service.at(80)] {
        Connect::to(to).answered(&client)?;
    }
    // The application speaks first.
    Connect::to(at(9202)).silent().answered(&client)?;
    // Every byte, both ways, and each direction's end.
    let sent = traffic(&client, "send", at(9203), &["--bytes", "3000001", "--both-ways"])?;
    assert_eq!(sent["received"], 3_000_001, "{sent}");
    for first in ["client", "server"] {
        traffic(&client, "half-close", at(9203), &["--first", first])?;
    }
    for line in mesh.told("node-a", 6)? {
        assert_eq!(line["security"], "mutual_tls", "{line}");
        assert_eq!(line["destination_principal"], LEGACY, "{line}");
        assert_eq!(line["destination_pod"], "legacy/legacy", "{line}");
    }
    // On the sidecar's own node as well; it is the sidecar that decides who may.
    let refused = Connect::to(at(9201)).run(&other)?;
    assert_eq!(refused.outcome, "reset", "{refused:?}");
    let why = ctl_json(&mesh, "node-a", &["why", "app/client", "legacy/legacy:80"], 0)?;
    assert_eq!(why["ways"][0]["path"], "sidecar", "{why}");
    Ok(())
}

#[test]
fn nobody_else_is_taken_for_the_sidecar_and_its_owner_may_turn_mutual_tls_off() -> Verdict {
    let mesh = Mesh::start()?;
    let client = mesh.join(client("client", "node-a"))?;
    let signed_by = mesh.lab.ca_dir()?;
    // Its certificate is another account's.
    let offer = Offer {
        identity: "spiffe://cluster.local/ns/legacy/sa/thief",
        signed_by: &signed_by,
        protocols: &Offer::SERVED,
    };
    let thief = Sidecar::serve(&mesh, "legacy", &offer, "spiffe://cluster.local/ns/app/sa/client", &PORTS)?;
    mesh.settle()?;
    let at = |port| SocketAddr::new(thief.pod.ipv4(), port);
    let answer = Connect::to(at(9201)).run(&client)?;
    assert_eq!(answer.outcome, "reset", "{answer:?}");
    let told = mesh.told("node-a", 1)?;
    assert_eq!(told[0]["end"], "tunnel_failed", "{}", told[0]);
    assert_eq!(mesh.metrics("node-a")?.sum("mesh_tunnels_rejected_total", &[("reason", "identity_unexpected")]), 1.0);
    // The application's own port takes no TLS.
    let own = Connect::to(at(port::REPORT_PEER)).silent();
    assert_ne!(own.run(&client)?.outcome, "ok");
    let disable = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                   metadata: {name: off, namespace: legacy}\n\
                   spec: {selector: {matchLabels: {app: legacy}}, portLevelMtls: {7003: {mode: DISABLE}}}\n";
    mesh.lab.apply("off.yaml", disable)?;
    mesh.settle()?;
    own.answered(&client)?;
    Ok(())
}

#[test]
fn a_waypoint_speaks_to_a_sidecar_by_its_mutual_tls() -> Verdict {
    let mesh = Mesh::start()?;
    let client = mesh.join(client("client", "node-a"))?;
    let legacy = admitting(&mesh, "spiffe://cluster.local/ns/legacy/sa/waypoint")?;
    let listen = format!("127.0.0.1:{HTTP}");
    let mut http = legacy.pod.spawn(&["mesh-traffic", "http", "--name", "legacy", "--listen", &listen])?;
    http.wait_for_line("listening", PATIENCE)?;
    let spec = ServiceSpec::new("legacy", "legacy").select("app", "legacy");
    let spec = spec.port("http", 80, 9204).port("tcp", 81, 9201);
    let service = mesh.lab.service(spec)?;
    let waypoint = Waypoint::declare_in(&mesh, "legacy", "waypoint")?;
    waypoint.replica(&mesh, "waypoint-1", "node-b")?;
    waypoint.serve_namespace(&mesh)?;
    mesh.settle()?;
    let url = format!("http://{}/echo", service.at(80));
    for (by, version) in [("--http1.1", "HTTP/1.1"), ("--http2-prior-knowledge", "HTTP/2")] {
        let curl = ["curl", "-sS", "-m", "20", "--fail", by, &url];
        let seen = wait_until("the sidecar's application to answer", PATIENCE, || {
            Ok(client.exec(&curl)?.success().ok().map(str::to_owned))
        })?;
        assert!(seen.contains(&format!("x-came-by: {version}")), "{seen}");
    }
    Connect::to(service.at(81)).answered(&client)?;
    // Past the waypoint the sidecar knows the client for nobody whom it admits.
    let past = Connect::to(SocketAddr::new(legacy.pod.ipv4(), 9201)).run(&client)?;
    assert_ne!(past.outcome, "ok", "{past:?}");
    Ok(())
}
