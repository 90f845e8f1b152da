//! `mesh-ctl` against daemons that carry traffic: what it shows is what happens, and it answers nobody else.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use mesh_e2e::{Connect, Held, Mesh, NODES, PATIENCE, Verdict, client, ctl, ctl_json, echo, keys, port};
use mesh_lab::{Place, Process, ServiceSpec, binary, wait_until};
use serde_json::{Value, json};

const CLIENT: &str = "spiffe://cluster.local/ns/app/sa/client";
/// Octets of the first line that [`Held::says`] sends where it is seven long: with its number, a space and its end.
const SAID: u64 = 10;
const SERVER: &str = "spiffe://cluster.local/ns/app/sa/server";

/// What a line of a keys' list has: names that belong together, after what comes before them.
fn expected_keys(lines: &[(&str, &str)]) -> std::collections::BTreeSet<String> {
    let keys = lines.iter().flat_map(|(before, names)| names.split(' ').map(move |name| format!("{before}{name}")));
    keys.collect()
}

#[test]
fn a_connection_shows_at_both_ends_with_its_identities_and_its_bytes() -> Verdict {
    let mesh = Mesh::start()?;
    mesh.join(echo("server", "node-b"))?;
    let spec = ServiceSpec::new("app", "echo").select("app", "server").port("tcp", 80, port::ECHO);
    let service = mesh.lab.service(spec)?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    let mut held = Held::open(&client, service.at(80))?;
    held.says("1234567")?;
    for (node, reporter) in NODES.into_iter().zip(["source", "destination"]) {
        let list = ctl_json(&mesh, node, &["connection", "list"], 0)?;
        assert_eq!(list["total"], 1, "{list}");
        let shown = &list["items"][0];
        for (field, expected) in [
            ("/reporter", json!(reporter)),
            ("/open", json!(true)),
            ("/source/namespace", json!("app")),
            ("/source/pod", json!("client")),
            ("/source/principal", json!(CLIENT)),
            ("/destination/pod", json!("server")),
            ("/destination/principal", json!(SERVER)),
            ("/security", json!("mutual_tls")),
            ("/bytesFromClient", json!(SAID)),
            ("/bytesToClient", json!(SAID)),
        ] {
            assert_eq!(shown.pointer(field), Some(&expected), "{field} on {node}: {shown}");
        }
        assert_eq!(ctl_json(&mesh, node, &["status"], 0)?["connections"], 1);
        assert_eq!(ctl_json(&mesh, node, &["conn", "ls", "-n", "app"], 0)?["total"], 1);
        assert_eq!(ctl_json(&mesh, node, &["conn", "ls", "-n", "other"], 0)?["total"], 0);
    }
    let list = ctl_json(&mesh, "node-a", &["connection", "list"], 0)?;
    let party = "address namespace pod workload principal";
    let expected = expected_keys(&[
        ("", "total generation"),
        ("items[].", "id open ageSeconds reporter service originalDestination security bytesFromClient bytesToClient"),
        ("items[].source.", party),
        ("items[].destination.", party),
    ]);
    assert_eq!(keys(&list), expected);
    let table = ctl(&mesh, "node-a", &["connections", "list"])?;
    let line = table.success()?.lines().nth(1).with_context(|| table.to_string())?;
    assert!(line.contains("app/client:") && line.contains("app/server:7001") && line.contains("mutual_tls"), "{line}");
    held.close()?;
    let gone = || Ok((ctl_json(&mesh, "node-a", &["connection", "list"], 0)?["total"] == 0).then_some(()));
    wait_until("the connection to leave the list", PATIENCE, gone)?;
    Ok(())
}

/// `mesh-ctl flows` that has begun to listen.
fn flows(mesh: &Mesh, node: &str, arguments: &[&str]) -> Result<Process> {
    let mut process = mesh.lab.node(node)?.spawn(&[&["mesh-ctl", "flows"], arguments].concat())?;
    process.wait_for_line("TIME (UTC)", PATIENCE)?;
    Ok(process)
}

#[test]
fn flows_show_connections_as_they_open_end_and_are_refused() -> Verdict {
    let mesh = Mesh::start()?;
    let far = mesh.join(echo("server", "node-b"))?;
    let empty = mesh.lab.service(ServiceSpec::new("app", "empty").select("app", "nobody").port("tcp", 80, 80))?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    let mut all = flows(&mesh, "node-a", &["-f"])?;
    let mut refused = flows(&mesh, "node-a", &["-f", "--event", "refused", "--count", "1"])?;
    let mut elsewhere = flows(&mesh, "node-a", &["--for", "3600", "-n", "elsewhere"])?;
    let mut held = Held::open(&client, SocketAddr::new(far.ipv4(), port::ECHO))?;
    // While it lives.
    let opened = all.wait_for_line("opened", PATIENCE)?;
    assert!(opened.contains("mutual_tls  app/client:") && opened.contains("-> app/server:7001"), "{opened}");
    held.says("1234567")?;
    held.close()?;
    let closed = all.wait_for_line(" closed ", PATIENCE)?;
    assert!(closed.contains(": 10, 10; closed"), "{closed}");
    Connect::to(empty.at(80)).run(&client)?;
    let line = all.wait_for_line("refused", PATIENCE)?;
    assert!(
        line.contains("(empty.app.svc.cluster.local)") && line.contains("no_endpoint: service app/empty"),
        "{line}"
    );
    let only = refused.wait(PATIENCE)?;
    assert_eq!(only.success()?.lines().count(), 2, "{only}");
    assert!(elsewhere.status()?.is_none() && elsewhere.stdout().lines().count() == 1, "{}", elsewhere.stdout());
    assert!(all.status()?.is_none(), "it follows on");
    Ok(())
}

#[test]
fn flows_for_programs_are_a_line_of_json_each() -> Verdict {
    let mesh = Mesh::start()?;
    let [client, far] = mesh.client_and_echo()?;
    let argv = ["mesh-ctl", "flows", "-f", "--count", "2", "-o", "json"];
    let mut process = mesh.lab.node("node-a")?.spawn(&argv)?;
    // Without headings nothing tells that it listens, but the daemon's count of requests.
    let listens = || {
        let metrics = mesh.metrics("node-a")?;
        Ok((metrics.sum("mesh_admin_requests_total", &[("code", "200")]) >= 1.0).then_some(()))
    };
    wait_until("mesh-ctl to listen", PATIENCE, listens)?;
    Connect::to(SocketAddr::new(far.ipv4(), port::ECHO)).answered(&client)?;
    let output = process.wait(PATIENCE)?;
    let events: Vec<Value> =
        output.success()?.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("lines of JSON")?;
    assert_eq!(events.iter().map(|event| &event["event"]).collect::<Vec<_>>(), ["opened", "closed"]);
    let party = "address namespace pod workload principal";
    let expected = expected_keys(&[
        ("", "atMilliseconds event id reporter originalDestination security bytesFromClient bytesToClient end"),
        ("source.", party),
        ("destination.", party),
    ]);
    assert_eq!(keys(&events[1]), expected);
    Ok(())
}

#[test]
fn status_names_what_is_not_as_it_should_be() -> Verdict {
    let mut mesh = Mesh::start()?;
    let pod = mesh.join(client("client", "node-a"))?;
    mesh.join(echo("server", "node-b"))?;
    let status = ctl_json(&mesh, "node-a", &["status"], 0)?;
    let hooks = status["dataPath"]["hooks"].as_array().context("no hooks")?;
    assert!(hooks.len() == 8 && hooks.iter().all(|hook| hook["present"] == true), "{status}");
    assert_eq!((&status["pods"]["desired"], &status["pods"]["enrolled"]), (&json!(1), &json!(1)), "{status}");
    assert_eq!(status["node"], "node-a");

    // On this node by its manifest, and nowhere by its processes.
    mesh.lab.apply("phantom.yaml", PHANTOM)?;
    mesh.lab.apply("broken.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: broken}\nspec: 7\n")?;
    mesh.settle()?;
    let status = wait_until("the phantom in the status", PATIENCE, || {
        let status = ctl_json(&mesh, "node-a", &["status"], 1)?;
        Ok((status["pods"]["pending"] == 1).then_some(status))
    })?;
    let waiting = &status["pods"]["waiting"][0];
    assert_eq!((&waiting["name"], &waiting["state"]), (&json!("phantom"), &json!("pending")), "{status}");
    let expected = expected_keys(&[
        ("", "version node pid uptimeSeconds kernel workers connections"),
        ("dataPath.", "podHooks cgroup"),
        ("dataPath.hooks[].", "name present"),
        ("config.", "generation workloads services errors warnings infos findings[]"),
        ("pods.", "desired enrolled pending failed"),
        ("pods.waiting[].", "namespace name state reason forSeconds"),
        ("certificates.", "held errors"),
    ]);
    assert!(keys(&status).is_superset(&expected), "{:?}", expected.difference(&keys(&status)));
    let table = ctl(&mesh, "node-a", &["status"])?;
    for part in ["1 of 2 enrolled, 1 pending, 0 failed", "app/phantom  pending", "broken.yaml", "all 8 hooks"] {
        assert!(table.stdout.contains(part), "{part}: {table}");
    }
    let workloads = ctl_json(&mesh, "node-a", &["workload", "list", "-n", "app"], 0)?;
    let state = |name: &str| {
        let items = workloads["items"].as_array().into_iter().flatten();
        items.clone().find(|item| item["name"] == name).map(|item| item["state"].clone())
    };
    // The server is on another node, of whose actual state this daemon knows nothing.
    assert_eq!(state("client"), Some(json!("enrolled")));
    assert_eq!(state("phantom"), Some(json!("pending")));
    assert_eq!(state("server"), Some(Value::Null));

    mesh.kill9("node-a")?;
    let away = ctl(&mesh, "node-a", &["status"])?;
    assert_eq!(away.code, Some(2), "{away}");
    assert!(away.stderr.contains("no daemon listens at") && away.stderr.contains("start mesh-node"), "{away}");
    mesh.start_daemon("node-a")?;
    mesh.wait_enrolled(&pod, 1)?;
    let pid = ctl_json(&mesh, "node-a", &["status"], 1)?["pid"].clone();
    assert_eq!(pid, mesh.daemon("node-a")?.id());
    Ok(())
}

const PHANTOM: &str = "apiVersion: v1
kind: Pod
metadata: {name: phantom, namespace: app, uid: 00000000-0000-4000-8000-00000000feed}
spec: {nodeName: node-a, serviceAccountName: default}
status: {phase: Running, podIP: 10.250.0.9, podIPs: [{ip: 10.250.0.9}]}
";

#[test]
fn lists_show_workloads_services_and_certificates() -> Verdict {
    let mesh = Mesh::start()?;
    let far = mesh.join(echo("server", "node-b"))?;
    mesh.lab.service(ServiceSpec::new("app", "echo").select("app", "server").port("tcp", 80, port::ECHO))?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.lab.deploy(mesh_lab::PodSpec::new("elsewhere", "stranger").on("node-a"))?;
    mesh.settle()?;
    Connect::to(SocketAddr::new(far.ipv4(), port::ECHO)).answered(&client)?;
    let seen = wait_until("the stranger in the list", PATIENCE, || {
        let list = ctl_json(&mesh, "node-a", &["workloads", "list", "-n", "elsewhere"], 0)?;
        Ok((list["total"] == 1).then_some(list))
    })?;
    let why = "neither the pod nor its namespace is labelled to join";
    assert_eq!(seen["items"][0]["outside"], why, "{seen}");

    let few = ctl(&mesh, "node-a", &["wl", "ls", "--limit", "1", "--no-headers"])?;
    assert_eq!(few.success()?.lines().count(), 1, "{few}");
    assert!(few.stderr.contains("1 of 3 workloads shown"), "{few}");
    let all = ctl(&mesh, "node-a", &["wl", "ls", "--limit", "0"])?;
    assert_eq!((all.success()?.lines().count(), all.stderr.as_str()), (4, ""), "{all}");

    let services = ctl_json(&mesh, "node-a", &["svc", "list", "-n", "app"], 0)?;
    let service = &services["items"][0];
    assert_eq!(service["hostname"], "echo.app.svc.cluster.local", "{services}");
    assert_eq!(service["ports"][0]["endpoints"][0]["workload"], "app/server", "{services}");
    let expected = expected_keys(&[
        ("", "total generation"),
        ("items[].", "namespace name hostname addresses[]"),
        ("items[].ports[].", "name port protocol ready"),
        ("items[].ports[].endpoints[].", "address workload"),
    ]);
    assert_eq!(keys(&services), expected);

    let certificates = ctl_json(&mesh, "node-a", &["certificate", "list"], 0)?;
    let held: Vec<_> = certificates["items"].as_array().into_iter().flatten().map(|it| &it["identity"]).collect();
    assert_eq!(held, [CLIENT], "{certificates}");
    assert!(certificates["items"][0]["expiresInSeconds"].as_u64() > Some(3_600), "{certificates}");
    let yaml = ctl(&mesh, "node-a", &["cert", "list", "-o", "yaml"])?;
    assert!(yaml.success()?.contains(CLIENT), "{yaml}");
    Ok(())
}

#[test]
fn the_log_level_changes_what_is_logged_while_the_daemon_runs() -> Verdict {
    let mesh = Mesh::start()?;
    let [client, far] = mesh.client_and_echo()?;
    let to = SocketAddr::new(far.ipv4(), port::ECHO);
    let level = |arguments: &[&str]| ctl(&mesh, "node-a", &[&["log", "level"], arguments].concat());
    assert_eq!(level(&[])?.success()?, "info\n");
    Connect::to(to).answered(&client)?;
    mesh.told("node-a", 1)?;

    assert_eq!(level(&["info,access=off"])?.success()?, "info,access=off\n");
    Connect::to(to).answered(&client)?;
    // The other end tells of it, and by then this one would have.
    mesh.told("node-b", 2)?;
    assert_eq!(level(&[])?.success()?, "info,access=off\n");
    let nonsense = level(&["inof"])?;
    assert_eq!(nonsense.code, Some(2), "{nonsense}");
    assert!(nonsense.stderr.contains("\"inof\" is no level: say error, warn"), "{nonsense}");

    level(&["info"])?.success()?;
    Connect::to(to).answered(&client)?;
    let told = mesh.told("node-a", 2)?;
    assert_eq!(told.len(), 2, "the one in between is not told: {told:?}");
    Ok(())
}

#[test]
fn a_user_without_rights_is_refused_by_the_file_and_by_the_kernels_word_for_who_asks() -> Verdict {
    let mesh = Mesh::start()?;
    // Where anybody may run it.
    let place = mesh.lab.home().join("anybody");
    fs::create_dir(&place).context("a place")?;
    let program = place.join("mesh-ctl");
    fs::copy(binary("mesh-ctl")?, &program).context("a copy")?;
    let program = program.display().to_string();
    let node = mesh.lab.node("node-a")?;
    let as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--", &program, "status"];
    let output = node.exec(&as_nobody)?;
    assert_eq!(output.code, Some(2), "{output}");
    assert!(output.stderr.contains("is for root and the daemon's own user"), "{output}");

    // Whoever opens the file to all opens nothing.
    fs::set_permissions(mesh.lab.admin_socket("node-a"), fs::Permissions::from_mode(0o666)).context("opened to all")?;
    let output = node.exec(&as_nobody)?;
    assert_eq!(output.code, Some(2), "{output}");
    assert!(output.stderr.contains("user 65534 may not use the admin API; ask as root"), "{output}");
    assert!(output.stdout.is_empty(), "{output}");
    assert_eq!(mesh.metrics("node-a")?.sum("mesh_admin_requests_total", &[("code", "403")]), 1.0);
    ctl(&mesh, "node-a", &["status"])?.success()?;
    Ok(())
}

/// The line of a table about a thing.
fn about<'a>(table: &'a str, name: &str) -> &'a str {
    table.lines().find(|line| line.starts_with(name)).unwrap_or_default()
}

#[test]
fn precheck_names_what_is_there_what_is_taken_and_who_else_has_hooks() -> Verdict {
    let mut mesh = Mesh::start()?;
    mesh.join(client("client", "node-a"))?;
    let bpf = mesh.lab.home().join("bpf.node-a/mesh").display().to_string();
    let check = |mesh: &Mesh, more: &[&str]| {
        let arguments = [&["mesh-ctl", "precheck", "--bpf-dir", &bpf], more].concat();
        mesh.lab.node("node-a")?.exec(&arguments)
    };
    let all = check(&mesh, &[])?;
    let table = all.success()?;
    for name in ["user", "capabilities", "kernel", "BTF", "cgroup v2", "BPF file system", "ports on the node"] {
        let state = about(table, name).strip_prefix(name).map(str::trim_start).unwrap_or_default();
        assert!(state.starts_with("ok"), "{name}: {table}");
    }
    // The daemon of node-b has its programs at the same cgroup, as another owner would.
    let hooks = about(table, "connect hooks");
    assert!(hooks.contains("warning") && hooks.contains("connect4 (program"), "{table}");

    mesh.kill9("node-a")?;
    let taker = ["mesh-traffic", "echo", "--listen", "[::]:15020"];
    let mut squatter = mesh.lab.node("node-a")?.spawn(&taker)?;
    let taken = wait_until("the port to be taken", PATIENCE, || {
        let output = check(&mesh, &[])?;
        Ok((output.code == Some(1)).then_some(output))
    })?;
    let ports = about(&taken.stdout, "ports on the node");
    assert!(ports.contains("missing") && ports.contains("15020 is taken by mesh-traffic (process "), "{taken}");
    assert!(ports.contains("--metrics-addr"), "{taken}");
    squatter.kill()?;

    let away = check(&mesh, &["--cgroup-root", "/run", "-o", "json"])?;
    assert_eq!(away.code, Some(1), "{away}");
    let missing: Vec<Value> = away.json()?["requirements"].as_array().into_iter().flatten().cloned().collect();
    let missing: Vec<_> = missing.iter().filter(|it| it["state"] == "missing").map(|it| &it["detail"]).collect();
    assert_eq!(missing, ["/run is not in a cgroup v2 hierarchy: pass the mount point of one with --cgroup-root"]);
    let nowhere = check(&mesh, &["--mesh-node", "/nonexistent/mesh-node"])?;
    assert_eq!(nowhere.code, Some(2), "{nowhere}");
    assert!(nowhere.stderr.contains("name the mesh-node program with --mesh-node"), "{nowhere}");
    Ok(())
}

#[test]
fn policies_are_listed_by_kind_with_what_they_do() -> Verdict {
    let mesh = Mesh::start()?;
    mesh.lab.apply("policies.yaml", POLICIES)?;
    mesh.settle()?;
    let list = ctl_json(&mesh, "node-b", &["policy", "list"], 0)?;
    let shown: Vec<_> = list["items"].as_array().into_iter().flatten().collect();
    let row = |item: &Value| {
        let text = |name: &str| item[name].as_str().unwrap_or("-").to_owned();
        ["kind", "namespace", "name", "scope", "action", "selects"].map(text).join(" ")
    };
    let rows: Vec<_> = shown.iter().map(|item| row(item)).collect();
    let expected = [
        "AuthorizationPolicy app no-strangers workload DENY app=server",
        "PeerAuthentication istio-system default mesh STRICT -",
        "DestinationRule app plain host DISABLE echo.app.svc.cluster.local",
    ];
    assert_eq!(rows, expected, "{list}");
    let few = ctl(&mesh, "node-b", &["policies", "list", "-n", "istio-system", "--no-headers"])?;
    assert_eq!(few.success()?.lines().count(), 1, "{few}");
    Ok(())
}

const POLICIES: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-strangers, namespace: app}
spec:
  selector: {matchLabels: {app: server}}
  action: DENY
  rules: [{from: [{source: {namespaces: [elsewhere]}}]}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: plain, namespace: app}
spec: {host: echo.app.svc.cluster.local, trafficPolicy: {tls: {mode: DISABLE}}}
";
