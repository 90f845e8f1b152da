//! Waypoints: what is sent to a Service goes by its waypoint, and nothing goes past it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mesh_e2e::{Connect, Held, Mesh, NAMESPACE, PATIENCE, Verdict, Waypoint, client, connections, port, server};
use mesh_lab::{Place as _, Pod, Service, ServiceSpec, wait_until};

/// A mesh with a server on node b, behind a Service at port 80, and a client on node a.
fn served(mesh: &Mesh, server_node: &str) -> anyhow::Result<(Pod, Service, Pod)> {
    let pod = mesh.join(server("server", server_node))?;
    let spec = ServiceSpec::new("app", "server").select("app", "server").port("tcp", 80, port::ECHO);
    let service = mesh.lab.service(spec)?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    Ok((pod, service, client))
}

#[test]
fn a_services_traffic_goes_by_its_waypoint_each_way_over_mtls() -> Verdict {
    let mesh = Mesh::start()?;
    // On one node, where the kernel would connect them with nothing between.
    let (_, service, client) = served(&mesh, "node-a")?;
    let waypoint = Waypoint::declare_in(&mesh, NAMESPACE, "waypoint")?;
    waypoint.replica(&mesh, "waypoint-1", "node-b")?;
    waypoint.serve_namespace(&mesh)?;
    mesh.settle()?;
    for to in [service.at(80), service.at_v6(80)] {
        assert_eq!(Connect::to(to).answered(&client)?.peer, Some(to));
    }
    let daemon = mesh.daemon("node-a")?;
    let line = |key: &'static str, is: String| {
        wait_until("a connection of the waypoint in the log", PATIENCE, || {
            Ok(connections(daemon).into_iter().find(|line| line[key] == is.as_str()))
        })
    };
    let out = line("destination_principal", waypoint.identity())?;
    assert_eq!(out["source_pod"], "app/client", "{out}");
    assert_eq!(out["security"], "mutual_tls", "{out}");
    let into = line("source_principal", waypoint.identity())?;
    assert_eq!(into["destination_pod"], "app/server", "{into}");
    assert_eq!(into["security"], "mutual_tls", "{into}");
    Ok(())
}

#[test]
fn a_connection_that_a_waypoint_does_not_look_into_is_told_of_as_it_opens_and_closes() -> Verdict {
    let mesh = Mesh::start()?;
    let (_, service, client) = served(&mesh, "node-b")?;
    let waypoint = Waypoint::declare_in(&mesh, NAMESPACE, "waypoint")?;
    let replica = waypoint.replica(&mesh, "waypoint-1", "node-b")?;
    waypoint.serve_namespace(&mesh)?;
    mesh.settle()?;
    let socket = mesh.lab.waypoint_socket(NAMESPACE, replica.name());
    let socket = socket.to_str().context("a path of text")?;
    let mut flows = mesh.lab.node("node-b")?.spawn(&["mesh-ctl", "waypoint", "flows", "--socket", socket, "-f"])?;
    flows.wait_for_line("TIME (UTC)", PATIENCE)?;
    let mut held = Held::open(&client, service.at(80))?;
    // While it lives.
    let opened = flows.wait_for_line("opened", PATIENCE)?;
    assert!(opened.contains("mutual_tls  app/client:") && opened.contains("-> app/server:7001"), "{opened}");
    held.says("1234567")?;
    held.close()?;
    let closed = flows.wait_for_line(" closed ", PATIENCE)?;
    assert!(closed.contains("(server.app.svc.cluster.local): 10, 10; closed"), "{closed}");
    Ok(())
}

#[test]
fn connections_are_spread_over_the_replicas() -> Verdict {
    const CONNECTIONS: usize = 60;
    let mesh = Mesh::start()?;
    let (_, service, client) = served(&mesh, "node-b")?;
    let waypoint = Waypoint::declare_in(&mesh, NAMESPACE, "waypoint")?;
    for (name, node) in [("waypoint-1", "node-a"), ("waypoint-2", "node-b")] {
        waypoint.replica(&mesh, name, node)?;
    }
    waypoint.serve_namespace(&mesh)?;
    mesh.settle()?;
    for _ in 0..CONNECTIONS {
        Connect::to(service.at(80)).answered(&client)?;
    }
    let counts = wait_until("every connection in the client's log", PATIENCE, || {
        let mut counts = BTreeMap::new();
        for line in connections(mesh.daemon("node-a")?) {
            if line["destination_principal"] == waypoint.identity().as_str() {
                *counts.entry(line["destination_pod"].to_string()).or_insert(0_usize) += 1;
            }
        }
        Ok((counts.values().sum::<usize>() >= CONNECTIONS).then_some(counts))
    })?;
    // Of 60 throws of a fair coin, fewer than 12 of one side come once in a million times.
    assert!(counts.len() == 2 && counts.values().all(|count| *count >= 12), "{counts:?}");
    Ok(())
}

#[test]
fn without_a_replica_connections_wait_a_while_and_are_then_reset() -> Verdict {
    let mesh = Mesh::start()?;
    let (_, service, client) = served(&mesh, "node-b")?;
    let waypoint = Waypoint::declare_in(&mesh, NAMESPACE, "waypoint")?;
    waypoint.serve_namespace(&mesh)?;
    mesh.settle()?;
    let begun = Instant::now();
    let answer = Connect::to(service.at(80)).run(&client)?;
    let took = begun.elapsed();
    assert!(answer.was_refused(), "{answer:?}");
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(20), "{took:?}");
    assert_eq!(mesh.refused("node-a", "no_endpoint")?, 1);
    waypoint.replica(&mesh, "waypoint-1", "node-b")?;
    mesh.settle()?;
    Connect::to(service.at(80)).answered(&client)?;
    Ok(())
}

/// A policy that a waypoint alone can judge.
const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: clients, namespace: app}
spec:
  targetRefs: [{group: '', kind: Service, name: server}]
  rules: [{from: [{source: {principals: [cluster.local/ns/app/sa/client]}}]}]
";

#[test]
fn where_policies_are_attached_to_the_waypoint_nobody_goes_around_it() -> Verdict {
    let mesh = Mesh::start()?;
    let (server, service, client) = served(&mesh, "node-b")?;
    let waypoint = Waypoint::declare_in(&mesh, NAMESPACE, "waypoint")?;
    waypoint.replica(&mesh, "waypoint-1", "node-b")?;
    waypoint.serve_namespace(&mesh)?;
    mesh.settle()?;
    let (around, other) =
        (SocketAddr::new(server.ipv4(), port::ECHO), SocketAddr::new(server.ipv4(), port::REPORT_PEER));
    let outside = mesh.lab.outside("outside")?;
    Connect::to(around).answered(&client)?;
    Connect::to(around).answered(&outside)?;
    mesh.lab.apply("policy.yaml", POLICY)?;
    mesh.settle()?;
    let refused = |answer: mesh_e2e::Answer| assert!(answer.was_refused(), "{answer:?}");
    refused(Connect::to(around).run(&client)?);
    refused(Connect::to(around).run(&outside)?);
    Connect::to(other).answered(&client)?;
    Connect::to(service.at(80)).answered(&client)?;
    Ok(())
}

/// The HTTP server of the shop behind a Service at port 80, and clients under two accounts.
fn product(mesh: &Mesh) -> anyhow::Result<(Service, Pod, Pod)> {
    let spec = client("product", "node-b").label("app", "product").port("http", 8080);
    mesh.join(spec.command(["mesh-shop", "product", "--listen", "[::]:8080"]))?;
    let spec = ServiceSpec::new("app", "product").select("app", "product").port("http", 80, 8080);
    let service = mesh.lab.service(spec)?;
    Ok((service, mesh.join(client("client", "node-a"))?, mesh.join(client("other", "node-a"))?))
}

/// The status that a request is answered with.
fn status(from: &Pod, method: &str, to: &Service, target: &str) -> anyhow::Result<String> {
    let url = format!("http://{}{target}", to.hostname());
    let argv = ["curl", "--silent", "--max-time", "30", "--path-as-is", "--output", "/dev/null"];
    let argv: Vec<_> = argv.into_iter().chain(["--request", method, "--write-out", "%{http_code}", &url]).collect();
    Ok(from.exec(&argv)?.stdout)
}

/// What a waypoint reads of requests.
const READERS: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: app}
spec:
  targetRefs: [{group: '', kind: Service, name: product}]
  rules:
  - from: [{source: {principals: [cluster.local/ns/app/sa/client]}}]
    to: [{operation: {methods: [GET], paths: ['/products', '/{*}/stock']}}]
";

#[test]
fn a_waypoint_judges_each_request_by_who_sends_it_and_what_it_asks_for() -> Verdict {
    let mesh = Mesh::start()?;
    let (product, client, other) = product(&mesh)?;
    let waypoint = Waypoint::declare_in(&mesh, NAMESPACE, "waypoint")?;
    waypoint.replica(&mesh, "waypoint-1", "node-b")?;
    waypoint.serve_namespace(&mesh)?;
    mesh.settle()?;
    assert_eq!(status(&client, "GET", &product, "/healthz")?, "200");
    mesh.lab.apply("readers.yaml", READERS)?;
    mesh.settle()?;
    wait_until("the waypoint to have read the policy", PATIENCE, || {
        Ok((status(&client, "GET", &product, "/healthz")? == "403").then_some(()))
    })?;
    for (from, method, target, expected) in [
        (&client, "GET", "/products?item=tea", "200"),
        (&client, "GET", "/./products?item=tea", "200"),
        (&client, "GET", "/%70roducts?item=tea", "200"),
        // Allowed, and not there.
        (&client, "GET", "/tea/stock", "404"),
        (&client, "POST", "/products?item=tea", "403"),
        (&client, "GET", "/products/../healthz", "403"),
        (&client, "GET", "/%68ealthz", "403"),
        (&client, "GET", "//products?item=tea", "403"),
        (&client, "GET", "/a%2Fb/stock", "403"),
        (&client, "GET", "/products%00", "400"),
        (&client, "GET", "/%zz", "400"),
        (&other, "GET", "/products?item=tea", "403"),
    ] {
        assert_eq!(status(from, method, &product, target)?, expected, "{method} {target}");
    }
    Ok(())
}

/// Brings a directory to what another one holds.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[test]
fn a_waypoint_that_hears_of_its_service_later_than_the_node_loses_no_connection() -> Verdict {
    let mesh = Mesh::start()?;
    let (_, service, client) = served(&mesh, "node-b")?;
    let waypoint = Waypoint::declare_in(&mesh, NAMESPACE, "waypoint")?;
    let late = mesh.lab.home().join("late");
    copy(mesh.lab.config_dir(), &late)?;
    let replica = waypoint.replica_that_reads(&mesh, "waypoint-1", "node-b", &late)?;
    waypoint.serve_namespace(&mesh)?;
    mesh.settle()?;
    let answer = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| Connect::to(service.at(80)).run(&client));
        replica.wait_for_line("is not reached by waypoint app/waypoint", PATIENCE)?;
        copy(mesh.lab.config_dir(), &late)?;
        connecting.join().expect("the client's thread")
    })?;
    assert_eq!(answer.peer, Some(service.at(80)), "{answer:?}");
    assert_eq!(mesh.refused("node-a", "unreachable")?, 0);
    Ok(())
}
