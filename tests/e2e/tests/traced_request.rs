//! `mesh-ctl trace-request`: one request from a pod, and what each hop tells of it.

use anyhow::Context as _;
use mesh_e2e::{Mesh, Verdict, Waypoint, client, ctl, ctl_json};
use mesh_lab::{PodSpec, ServiceSpec};
use serde_json::Value;

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: app}
spec:
  targetRefs: [{group: '', kind: Service, name: cart}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
";

/// A Service of HTTP on node b in each of two namespaces, of which one has a waypoint, and a client on node a.
fn scene() -> anyhow::Result<(Mesh, String)> {
    let mesh = Mesh::start()?;
    mesh.lab.label_namespace("plain", "mesh.dev/join", "enabled")?;
    for (namespace, app) in [("app", "cart"), ("plain", "bare")] {
        let command = ["mesh-traffic", "http", "--listen", "[::]:8080", "--name", app];
        let spec = PodSpec::new(namespace, app).on("node-b").service_account(app).label("app", app);
        mesh.join(spec.command(command).port("http", 8080))?;
        mesh.lab.service(ServiceSpec::new(namespace, app).select("app", app).port("http", 80, 8080))?;
    }
    mesh.join(client("client", "node-a"))?;
    mesh.lab.apply("policy.yaml", POLICY)?;
    let waypoint = Waypoint::declare_in(&mesh, "app", "waypoint")?;
    waypoint.serve_namespace(&mesh)?;
    // It is ready once it has read all of that.
    waypoint.replica(&mesh, "waypoint-1", "node-b")?;
    mesh.settle()?;
    let socket = waypoint.admin_socket(&mesh, "waypoint-1").display().to_string();
    Ok((mesh, socket))
}

fn hop<'a>(report: &'a Value, by: &str) -> &'a Value {
    let hops = report["hops"].as_array().into_iter().flatten();
    hops.into_iter().find(|hop| hop["by"] == by).unwrap_or(&Value::Null)
}

#[test]
fn each_hop_of_a_traced_request_tells_what_it_decided() -> Verdict {
    let (mesh, socket) = scene()?;
    let traced = |method: &str, url: &str, code: i32| {
        let arguments = ["trace-request", method, url, "--from", "app/client", "--b3", "--waypoint", &*socket];
        ctl_json(&mesh, "node-a", &arguments, code)
    };
    let report = traced("GET", "http://cart.app/items", 0)?;
    assert_eq!((&report["status"], &report["silent"]), (&Value::from(200), &Value::Null), "{report:#}");
    let node = &hop(&report, "node")["flow"];
    assert_eq!(node["source"]["principal"], "spiffe://cluster.local/ns/app/sa/client", "{report:#}");
    assert_eq!(node["destination"]["principal"], "spiffe://cluster.local/ns/app/sa/waypoint", "{report:#}");
    let waypoint = hop(&report, "waypoint");
    assert_eq!(waypoint["verdict"], "allowed", "{report:#}");
    assert_eq!(waypoint["flow"]["request"]["traceId"], report["traceId"], "{report:#}");
    assert_eq!(waypoint["flow"]["request"]["path"], "/items", "{report:#}");
    assert_eq!(waypoint["flow"]["source"]["principal"], "spiffe://cluster.local/ns/app/sa/client", "{report:#}");

    let report = traced("POST", "http://cart.app/items", 1)?;
    assert_eq!(report["status"], 403, "{report:#}");
    let waypoint = hop(&report, "waypoint");
    assert_eq!(
        (&waypoint["verdict"], &hop(&report, "node")["verdict"]),
        (&"denied".into(), &"allowed".into()),
        "{report:#}"
    );
    assert!(waypoint["flow"].to_string().contains("app/readers"), "{report:#}");

    // Of those of this machine, the server's node tells where it is named: of the waypoint's own connection, or of the client's.
    let peer = mesh.lab.admin_socket("node-b").display().to_string();
    let traced_by_both = |url: &str| {
        let arguments = ["trace-request", "GET", url, "--from", "app/client", "--waypoint", &*socket, "--peer", &*peer];
        ctl_json(&mesh, "node-a", &arguments, 0)
    };
    for (url, source, server) in [
        ("http://cart.app/items", "ns/app/sa/waypoint", "ns/app/sa/cart"),
        ("http://bare.plain/", "ns/app/sa/client", "ns/plain/sa/bare"),
    ] {
        let report = traced_by_both(url)?;
        assert_eq!(report["silent"], Value::Null, "{report:#}");
        let told = &hop(&report, "server");
        assert_eq!(
            (&told["verdict"], &told["flow"]["security"]),
            (&"allowed".into(), &"mutual_tls".into()),
            "{report:#}"
        );
        let talk = &told["flow"];
        assert_eq!(talk["source"]["principal"], format!("spiffe://cluster.local/{source}"), "{report:#}");
        assert_eq!(talk["destination"]["principal"], format!("spiffe://cluster.local/{server}"), "{report:#}");
        assert_eq!(talk["reporter"], "destination", "{report:#}");
    }

    // Without a waypoint the node alone tells.
    let report = traced("GET", "http://bare.plain/", 0)?;
    assert_eq!((&report["status"], &report["silent"]), (&Value::from(200), &Value::Null), "{report:#}");
    let node = &hop(&report, "node")["flow"];
    assert_eq!(node["destination"]["principal"], "spiffe://cluster.local/ns/plain/sa/bare", "{report:#}");
    assert_eq!(*hop(&report, "waypoint"), Value::Null, "{report:#}");
    Ok(())
}

/// What a node refuses the waypoint, who alone may not come to it.
const NOBODY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: app}
spec:
  selector: {matchLabels: {app: cart}}
  rules: [{from: [{source: {principals: [cluster.local/ns/app/sa/other]}}]}]
";

#[test]
fn what_the_servers_node_refuses_the_waypoint_is_told_with_its_policy() -> Verdict {
    let (mesh, socket) = scene()?;
    mesh.lab.apply("nobody.yaml", NOBODY)?;
    mesh.settle()?;
    let peer = mesh.lab.admin_socket("node-b").display().to_string();
    let arguments = ["trace-request", "GET", "http://cart.app/items", "--from", "app/client", "--waypoint", &*socket];
    let report = ctl_json(&mesh, "node-a", &[&arguments[..], &["--peer", &*peer]].concat(), 1)?;
    assert_eq!(report["status"], 503, "{report:#}");
    let told = hop(&report, "server");
    assert_eq!((&told["verdict"], &told["flow"]["event"]), (&"denied".into(), &"refused".into()), "{report:#}");
    assert!(told["flow"]["policy"].to_string().contains("app/nobody"), "{report:#}");
    assert_eq!(told["flow"]["source"]["principal"], "spiffe://cluster.local/ns/app/sa/waypoint", "{report:#}");
    Ok(())
}

/// A client that has a trace already names it, and secrets of the header are nowhere in a command line.
#[test]
fn the_header_may_be_read_from_a_file_and_may_name_the_trace() -> Verdict {
    let (mesh, socket) = scene()?;
    let file = tempfile::NamedTempFile::new().context("a file")?;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    std::fs::write(file.path(), format!("Authorization: Bearer x\ntraceparent: 00-{trace}-00f067aa0ba902b7-00\n\n"))
        .context("writing")?;
    let header = format!("@{}", file.path().display());
    let arguments = ["trace-request", "GET", "http://cart.app/items", "--from", "app/client", "--waypoint", &*socket];
    let report = ctl_json(&mesh, "node-a", &[&arguments[..], &["-H", &*header]].concat(), 0)?;
    assert_eq!(
        (&report["traceId"], &hop(&report, "waypoint")["flow"]["request"]["traceId"]),
        (&trace.into(), &trace.into())
    );
    Ok(())
}

#[test]
fn a_request_is_sent_by_root_on_the_pods_own_node_or_not_at_all() -> Verdict {
    let (mesh, socket) = scene()?;
    let request = ["trace-request", "GET", "http://cart.app/items", "--waypoint", &*socket];
    let elsewhere = ctl(&mesh, "node-b", &[&request[..], &["--from", "app/client"]].concat())?;
    assert_eq!(elsewhere.code, Some(2), "{elsewhere}");
    assert!(elsewhere.stderr.contains("runs on node-a"), "{elsewhere}");
    let told = ctl(&mesh, "node-a", &[&request[..], &["--from", "app/client"]].concat())?;
    assert_eq!(told.code, Some(0), "{told}");
    for line in [
        "client     app/client, to ",
        "node       app/client -> app/waypoint-1",
        "waypoint   app/client -> ",
        "answer     200 after ",
    ] {
        assert!(told.stdout.contains(line), "{line} in {told}");
    }
    Ok(())
}
