//! `mesh-ctl why` says what the traffic then does.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use mesh_e2e::{Connect, Held, Mesh, NAMESPACE, PATIENCE, Verdict, Waypoint, client, ctl, ctl_json, echo, keys, port};
use mesh_lab::{Place, Pod, PodSpec, ServiceSpec, wait_until};
use serde_json::{Value, json};

/// What `mesh-ctl why` says on node-a, where the client is.
fn why(mesh: &Mesh, source: &str, destination: &str, allowed: bool) -> Result<Value> {
    let answer = ctl_json(mesh, "node-a", &["why", source, destination], if allowed { 0 } else { 1 })?;
    assert_eq!(answer["allowed"], allowed, "{answer}");
    // By the same manifests, with no daemon: the same, but for what the node adds.
    let manifests = mesh.lab.config_dir().display().to_string();
    let arguments = ["why", source, destination, "--config", &manifests];
    let mut offline = ctl_json(mesh, "node-a", &arguments, if allowed { 0 } else { 1 })?;
    offline["node"] = answer["node"].clone();
    assert_eq!(offline, answer, "without a daemon");
    let checked = ctl(mesh, "node-a", &["authz", "check", source, destination])?;
    assert_eq!(checked.code, Some(i32::from(!allowed)), "{checked}");
    assert_eq!(Some(checked.stdout.trim()), answer["summary"].as_str(), "{checked}");
    Ok(answer)
}

/// What the client's daemon told of the connection that `to` got just now.
fn told(mesh: &Mesh, from: &Pod, to: SocketAddr, before: usize) -> Result<Value> {
    Connect::to(to).run(from)?;
    mesh.told("node-a", before + 1)?.pop().context("none")
}

#[test]
fn the_path_that_it_names_is_the_one_that_the_connection_takes() -> Verdict {
    let mesh = Mesh::start()?;
    let enrolled = mesh.join(echo("server", "node-b"))?;
    let stranger = PodSpec::new("elsewhere", "stranger").on("node-b").port("echo", port::ECHO);
    let listen = format!("[::]:{}", port::ECHO);
    let stranger = mesh.lab.deploy(stranger.command(["mesh-traffic", "echo", "--listen", &listen]))?;
    let spec = ServiceSpec::new("app", "echo").select("app", "server").port("tcp", 80, port::ECHO);
    let service = mesh.lab.service(spec)?;
    let empty = mesh.lab.service(ServiceSpec::new("app", "empty").select("app", "nobody").port("tcp", 80, 80))?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    let cases = [
        ("echo.app", service.at(80), "tunnel", "mutual_tls"),
        ("app/server", SocketAddr::new(enrolled.ipv4(), port::ECHO), "tunnel", "mutual_tls"),
        ("elsewhere/stranger:7001", SocketAddr::new(stranger.ipv4(), port::ECHO), "plaintext", "none"),
    ];
    for (before, (destination, to, path, security)) in cases.into_iter().enumerate() {
        let answer = why(&mesh, "app/client", destination, true)?;
        let way = &answer["ways"][0];
        assert_eq!((&answer["asked"], &way["path"]), (&json!(to.to_string()), &json!(path)), "{answer}");
        let line = told(&mesh, &client, to, before)?;
        assert_eq!(line["security"], security, "{destination}: {line}");
        assert_eq!(line["destination"], way["endpoint"], "{destination}: {line}");
        assert_eq!(line["source_principal"], answer["source"]["identity"], "{destination}: {line}");
        assert_eq!(line["end"], "closed", "{line}");
    }
    // The certificate is there once it was needed.
    let answer = why(&mesh, "client", "echo.app", true)?;
    assert_eq!(answer["node"]["certificate"]["identity"], answer["source"]["identity"], "{answer}");
    assert_eq!(answer["ways"][0]["mode"], json!({"mode": "PERMISSIVE", "level": "default"}), "{answer}");

    let answer = why(&mesh, "app/client", "empty.app", false)?;
    assert_eq!(answer["summary"], "refused: service app/empty has no ready endpoint of this address family");
    let line = told(&mesh, &client, empty.at(80), 3)?;
    assert_eq!(line["end"], "no_endpoint", "{line}");

    // One who is outside reaches it without mTLS.
    let answer = why(&mesh, "elsewhere/stranger", "echo.app", true)?;
    assert_eq!(answer["ways"][0]["path"], "plaintext", "{answer}");
    Connect::to(service.at(80)).answered(&stranger)?;
    let line = mesh.told("node-b", 3)?.pop().context("none")?;
    assert_eq!((&line["security"], &line["source_pod"]), (&json!("none"), &json!("elsewhere/stranger")));
    Ok(())
}

#[test]
fn pods_of_one_node_are_connected_by_the_kernel_as_it_says() -> Verdict {
    for (arguments, path, security) in
        [(&[][..], "direct", "kernel_attested"), (&["--same-node", "mtls"][..], "tunnel", "mutual_tls")]
    {
        let mesh = Mesh::with(arguments)?;
        let near = mesh.join(echo("server", "node-a"))?;
        let client = mesh.join(client("client", "node-a"))?;
        mesh.settle()?;
        let answer = ctl_json(&mesh, "node-a", &["why", "client", "app/server:7001"], 0)?;
        assert_eq!(answer["ways"][0]["path"], path, "{answer}");
        let offline = ["why", "client", "app/server:7001", "--config", &mesh.lab.config_dir().display().to_string()];
        let offline = ctl_json(&mesh, "node-a", &[&offline[..], arguments].concat(), 0)?;
        assert_eq!(offline["ways"], answer["ways"], "{offline}");
        Connect::to(SocketAddr::new(near.ipv4(), port::ECHO)).answered(&client)?;
        // Both ends are of this node.
        for line in mesh.told("node-a", 2)? {
            assert_eq!(line["security"], security, "{line}");
        }
        let status = ctl(&mesh, "node-a", &["status"])?;
        let same_node = if path == "direct" { "direct" } else { "mtls" };
        assert!(status.success()?.contains(&format!("same node    {same_node}\n")), "{status}");
    }
    Ok(())
}

const DENIAL: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-client, namespace: app}
spec:
  selector: {matchLabels: {app: server}}
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/app/sa/client]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: others, namespace: app}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [elsewhere]}}]}]}
";

#[test]
fn a_policy_that_denies_is_named_with_its_rule_and_cuts_what_is_open() -> Verdict {
    let mesh = Mesh::start()?;
    let near = mesh.join(echo("server", "node-a").label("app", "server"))?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    let mut held = Held::open(&client, SocketAddr::new(near.ipv4(), port::ECHO))?;
    held.says("before")?;
    let mut flows = mesh.lab.node("node-a")?.spawn(&["mesh-ctl", "flows", "-f", "--event", "cut"])?;
    flows.wait_for_line("TIME (UTC)", PATIENCE)?;
    why(&mesh, "client", "app/server:7001", true)?;

    mesh.lab.apply("denial.yaml", DENIAL)?;
    let cut = flows.wait_for_line("cut", PATIENCE)?;
    assert!(cut.contains("policy_denied: AuthorizationPolicy app/no-client denies it"), "{cut}");
    assert_ne!(held.ends()?, "ok");
    mesh.settle()?;
    let answer = why(&mesh, "client", "app/server:7001", false)?;
    assert_eq!(answer["summary"], "refused: AuthorizationPolicy app/no-client denies it");
    let policies = &answer["ways"][0]["policies"];
    assert_eq!((&policies[0]["policy"], &policies[0]["matchedRule"]), (&json!("app/no-client"), &json!(0)), "{answer}");
    let miss = json!({"field": "rules[0].from[0].source.namespaces", "found": "app"});
    assert_eq!((&policies[1]["policy"], &policies[1]["misses"][0]), (&json!("app/others"), &miss), "{answer}");
    let table = ctl(&mesh, "node-a", &["why", "client", "app/server:7001"])?;
    assert!(table.stdout.contains("DENY app/no-client (workload): rules[0] matches"), "{table}");
    assert!(table.stdout.contains("rules[0].from[0].source.namespaces: found app"), "{table}");
    Ok(())
}

/// The fields of an answer without policies.
const KEYS: [&str; 41] = [
    "allowed",
    "asked",
    "endpoints",
    "node.certificate.expiresInSeconds",
    "node.certificate.identity",
    "node.certificate.namespace",
    "node.certificate.nextRenewal",
    "node.certificate.notAfter",
    "node.certificate.notBefore",
    "node.certificate.roots[]",
    "node.certificate.serial",
    "node.certificate.serviceAccount",
    "node.networkNamespace",
    "node.node",
    "node.notes",
    "node.stops",
    "service",
    "source.address",
    "source.enrolled",
    "source.identity",
    "source.namespace",
    "source.node",
    "source.pod",
    "source.workload",
    "summary",
    "ways[].allowed",
    "ways[].audited",
    "ways[].destination.address",
    "ways[].destination.enrolled",
    "ways[].destination.identity",
    "ways[].destination.namespace",
    "ways[].destination.node",
    "ways[].destination.pod",
    "ways[].destination.workload",
    "ways[].endpoint",
    "ways[].mode.level",
    "ways[].mode.mode",
    "ways[].path",
    "ways[].pathReason",
    "ways[].policies",
    "ways[].reason",
];

#[test]
fn people_and_programs_get_an_answer_that_they_can_use() -> Verdict {
    let mesh = Mesh::start()?;
    mesh.join(echo("server", "node-b"))?;
    let spec = ServiceSpec::new("app", "echo").select("app", "server").port("tcp", 80, port::ECHO);
    mesh.lab.service(spec)?;
    mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    let answer = wait_until("the client's certificate", PATIENCE, || {
        let answer = why(&mesh, "client", "echo.app", true)?;
        Ok((!answer["node"]["certificate"].is_null()).then_some(answer))
    })?;
    assert_eq!(keys(&answer).into_iter().collect::<Vec<_>>(), KEYS);
    let table = ctl(&mesh, "node-a", &["why", "client", "echo.app"])?;
    for part in [
        "source       app/client (10.244.1.2) on node-a\n             spiffe://cluster.local/ns/app/sa/client, part of",
        "of echo.app.svc.cluster.local\n             one endpoint\n",
        "path         tunnel: mTLS to exactly spiffe://cluster.local/ns/app/sa/server\n",
        "mode         PERMISSIVE as no PeerAuthentication says otherwise\npolicies     none is about it\n",
        "\nallowed: no ALLOW policy is about the destination",
    ] {
        assert!(table.success()?.contains(part), "{part} in\n{}", table.stdout);
    }
    for (arguments, expected) in [
        (["why", "client", "nothing.app"], "there is no Service, pod or workload nothing.app"),
        (["why", "nobody", "echo.app"], "there is no pod or workload nobody"),
        (["why", "client", "app/client"], "which port of app/client?"),
    ] {
        let output = ctl(&mesh, "node-a", &arguments)?;
        assert_eq!((output.code, output.stdout.as_str()), (Some(2), ""), "{output}");
        assert!(output.stderr.contains(expected), "{output}");
    }
    // Asked elsewhere, it says where the rest of the answer is.
    let elsewhere = ctl_json(&mesh, "node-b", &["why", "client", "echo.app"], 0)?;
    assert_eq!(
        elsewhere["node"]["notes"][0],
        "the source runs on node-a: ask there for its certificate and its enrolment"
    );
    Ok(())
}

/// Near servers come first, and a server is left out after two errors in a row.
const NEAR_FIRST: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: app}
spec:
  host: cart
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 300s, maxEjectionPercent: 100}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: app}
spec: {hosts: [cart], http: [{route: [{destination: {host: cart}}], retries: {attempts: 0}}]}
";

/// Sends a request to the Service `cart`; the status, and who answered.
fn buy(from: &Pod) -> Result<String> {
    let format = "%{http_code} %header{x-served-by}";
    let url = "http://cart.app.svc.cluster.local/";
    let argv = ["curl", "--silent", "--max-time", "30", "--output", "/dev/null", "--write-out", format, url];
    Ok(from.exec_within(PATIENCE, &argv)?.stdout.trim().to_owned())
}

#[test]
fn behind_a_waypoint_it_says_which_server_is_first_and_which_is_ejected() -> Verdict {
    let mesh = Mesh::start()?;
    mesh.lab.place_node("node-a", "eu", "eu-a")?;
    mesh.lab.place_node("node-b", "eu", "eu-b")?;
    for (name, node, answers) in [("near", "node-a", &["--status", "500"][..]), ("far", "node-b", &[])] {
        let spec = PodSpec::new(NAMESPACE, name).on(node).label("app", "cart").port("http", 8080);
        let serve = ["mesh-traffic", "http", "--listen", "[::]:8080", "--name", name];
        mesh.join(spec.command([&serve, answers].concat()))?;
    }
    let client = mesh.join(client("client", "node-a"))?;
    mesh.lab.service(ServiceSpec::new(NAMESPACE, "cart").select("app", "cart").port("http", 80, 8080))?;
    mesh.lab.apply("near-first.yaml", NEAR_FIRST)?;
    let waypoint = Waypoint::declare_in(&mesh, NAMESPACE, "waypoint")?;
    waypoint.serve_namespace(&mesh)?;
    waypoint.replica(&mesh, "waypoint-1", "node-a")?;
    mesh.settle()?;
    let socket = waypoint.admin_socket(&mesh, "waypoint-1").display().to_string();
    let question = ["why", "app/client", "http://cart.app/"];
    let asked = |more: &[&str]| Ok::<_, anyhow::Error>(ctl(&mesh, "node-a", &[&question, more].concat())?.stdout);
    let by_replica = || asked(&["--waypoint", &socket]);
    let preferred = "chosen by localityLbSetting.failover, seen from app/waypoint-1 in eu/eu-a";
    let before = by_replica()?;
    for line in [preferred, "in eu/eu-a, first\n", "in eu/eu-b, priority 1", "app/waypoint-1: no endpoint is ejected\n"]
    {
        assert!(before.contains(line), "{line} in {before}");
    }
    assert_eq!([buy(&client)?, buy(&client)?], ["500 near", "500 near"]);
    assert_eq!(buy(&client)?, "200 far");
    let after = by_replica()?;
    let ejected = "in eu/eu-a, first, ejected at app/waypoint-1: too many 5xx in a row; back in ";
    for line in [ejected, "app/waypoint-1: one endpoint is ejected\n"] {
        assert!(after.contains(line), "{line} in {after}");
    }
    let told = ctl_json(&mesh, "node-a", &[&question[..], &["--waypoint", &socket]].concat(), 0)?;
    let ejected = &told["backends"][0]["ejected"];
    assert_eq!((&ejected[0]["pod"], &ejected[1]), (&json!("app/near"), &Value::Null), "{told}");
    // A node's daemon, and manifests, know of no ejections, and say of none that there are none.
    let manifests = mesh.lab.config_dir().display().to_string();
    for said in [asked(&[])?, asked(&["--config", &manifests])?] {
        assert!(said.contains(preferred) && !said.contains("eject"), "{said}");
    }
    Ok(())
}
