//! Requests of services without a waypoint: seen by the nodes that carry them, with real clients and servers.

use std::fs;

use mesh_e2e::{Mesh, NAMESPACE, PATIENCE, Shop, Verdict, client, ctl};
use mesh_lab::{Metrics, Place as _, Pod, PodSpec, wait_until};
use serde_json::Value;

const HTTP1: u16 = 8080;
const HTTP2: u16 = 8081;

/// Octets of what `/large` answers.
const LARGE: usize = 3000;
/// Octets of what `/huge` answers, and of what is sent to `/taken`.
const HUGE: usize = 1_000_003;

/// A pod with nginx: HTTP/1.1 at one port, HTTP/2 without TLS at another; all but `/`, `/large`, `/huge` and `/taken`
/// is missing there.
fn nginx(mesh: &Mesh, name: &str, node: &str) -> anyhow::Result<PodSpec> {
    let home = mesh.lab.home().join(name);
    fs::create_dir_all(&home)?;
    fs::write(home.join("huge"), vec![b'x'; HUGE])?;
    let home = home.display();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|path| format!("{path}_temp_path {home}/{path};"))
        .concat();
    let large = "x".repeat(LARGE);
    let answers = format!(
        "location = / {{ return 200 0123456789; }} location = /large {{ return 200 {large}; }} \
         location = /huge {{ root {home}; }} location = /taken {{ return 204; }} location / {{ return 404 missing; }}"
    );
    let config = format!(
        "user root; daemon off; pid {home}/pid; error_log stderr error; events {{}}\n\
         http {{ {paths} access_log off; server {{ listen 0.0.0.0:{HTTP1}; {answers} }} server {{ listen 0.0.0.0:{HTTP2} http2; {answers} }} }}\n"
    );
    let file = format!("{home}/nginx.conf");
    fs::write(&file, config)?;
    let command = ["nginx".to_owned(), "-p".to_owned(), home.to_string(), "-c".to_owned(), file];
    Ok(client(name, node).label("app", name).command(command).port("http", HTTP1).port("h2", HTTP2))
}

/// Asks for these paths; by HTTP/1.1 over one connection.
fn get(from: &Pod, to: &Pod, port: u16, paths: &[&str]) -> anyhow::Result<()> {
    let urls: Vec<String> = paths.iter().map(|path| format!("http://{}:{port}{path}", to.ipv4())).collect();
    // Some curls do not ask twice over one connection of HTTP/2 without TLS.
    let (at_once, version) = if port == HTTP2 { (1, "--http2-prior-knowledge") } else { (urls.len(), "--http1.1") };
    for urls in urls.chunks(at_once) {
        let mut argv = vec!["curl", "--silent", "--show-error", "--max-time", "10", version];
        // One place to write to for each.
        argv.extend(urls.iter().flat_map(|url| ["--output", "/dev/null", url]));
        from.exec(&argv)?.success()?;
    }
    Ok(())
}

const BY_NODE: (&str, &str) = ("reporter", "node");

/// Waits until a node has counted so many requests with these labels.
fn counted(mesh: &Mesh, node: &str, labels: &[(&str, &str)], count: f64) -> anyhow::Result<Metrics> {
    let labels = [&[BY_NODE], labels].concat();
    wait_until(&format!("{count} requests at {node} with {labels:?}"), PATIENCE, || {
        let metrics = mesh.metrics(node)?;
        Ok((metrics.sum("istio_requests_total", &labels) >= count).then_some(metrics))
    })
}

#[test]
fn the_servers_node_tells_of_requests_with_codes_bytes_and_who_asked() -> Verdict {
    let mesh = Mesh::start()?;
    let server = mesh.join(nginx(&mesh, "web", "node-b")?)?;
    let enrolled = mesh.join(client("client", "node-a").label("app", "client"))?;
    let outside = mesh.lab.outside("outside")?;
    mesh.settle()?;
    get(&enrolled, &server, HTTP1, &["/", "/", "/missing"])?;
    get(&enrolled, &server, HTTP2, &["/", "/missing", "/missing"])?;
    let (asker, web) =
        (("source_principal", "spiffe://cluster.local/ns/app/sa/client"), ("destination_workload", "web"));
    let secure = ("connection_security_policy", "mutual_tls");
    counted(&mesh, "node-b", &[asker, web, secure, ("response_code", "200")], 3.0)?;
    let metrics = counted(&mesh, "node-b", &[asker, web, secure, ("response_code", "404")], 3.0)?;
    assert_eq!(metrics.sum("istio_requests_total", &[]), 6.0, "each of them once");
    assert_eq!(metrics.sum("istio_request_duration_milliseconds_count", &[BY_NODE]), 6.0);
    assert_eq!(metrics.sum("istio_response_bytes_sum", &[("response_code", "200")]), 30.0);
    // The client's node sees them in its tunnels, and leaves them to the other.
    assert_eq!(mesh.metrics("node-a")?.sum("istio_requests_total", &[]), 0.0);
    // Plaintext is looked at as well, on its way in and on its way out.
    let url = format!("http://{}:{HTTP1}/", server.ipv4());
    outside.exec(&["curl", "--silent", "--fail", "--max-time", "10", "--output", "/dev/null", &url])?.success()?;
    counted(&mesh, "node-b", &[("source_principal", "unknown"), ("connection_security_policy", "none")], 1.0)?;
    Ok(())
}

#[test]
fn requests_between_two_pods_of_one_node_are_told_of_though_nobody_carries_them() -> Verdict {
    let mesh = Mesh::start()?;
    let server = mesh.join(nginx(&mesh, "web", "node-a")?)?;
    let asker = mesh.join(client("client", "node-a").label("app", "client"))?;
    mesh.settle()?;
    get(&asker, &server, HTTP1, &["/", "/large", "/", "/missing"])?;
    get(&asker, &server, HTTP2, &["/", "/large", "/missing"])?;
    let labels = [
        ("source_principal", "spiffe://cluster.local/ns/app/sa/client"),
        ("destination_workload", "web"),
        ("connection_security_policy", "none"),
    ];
    let of = |code: &'static str| [&labels[..], &[("response_code", code)]].concat();
    counted(&mesh, "node-a", &of("404"), 2.0)?;
    let metrics = counted(&mesh, "node-a", &of("200"), 5.0)?;
    assert_eq!(metrics.sum("istio_requests_total", &[]), 7.0, "each of them once");
    assert_eq!(metrics.sum("istio_request_duration_milliseconds_count", &[BY_NODE]), 7.0);
    // Also of the body whose end was not shown.
    assert_eq!(metrics.sum("istio_response_bytes_sum", &[("response_code", "200")]), (3 * 10 + 2 * LARGE) as f64);
    assert!(mesh.events("node-a", "direct_connect")? >= 4);
    assert_eq!(mesh.events("node-a", "outbound_connect")?, 0);
    assert_eq!((mesh.events("node-a", "direct_signal")?, mesh.events("node-a", "direct_signal_limit")?), (0, 0));
    Ok(())
}

#[test]
fn an_upload_between_two_pods_of_one_node_is_shown_in_part_and_later_requests_are_told_of() -> Verdict {
    let mesh = Mesh::start()?;
    let server = mesh.join(nginx(&mesh, "web", "node-a")?)?;
    let asker = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    let url = format!("http://{}:{HTTP1}/missing", server.ipv4());
    let upload = format!(
        "head -c 200000000 /dev/zero | curl --silent --max-time 60 --http1.1 --expect100-timeout 1 -T - -o /dev/null {url}"
    );
    asker.exec(&["sh", "-c", &upload])?;
    get(&asker, &server, HTTP1, &["/"; 20])?;
    counted(&mesh, "node-a", &[("response_code", "200")], 20.0)?;
    Ok(())
}

/// Asks for these by HTTP/2, so many times in turn, on one connection with several under way; `more` is h2load's.
fn ask_on_one_connection(from: &Pod, count: usize, more: &[&str], urls: &[String]) -> anyhow::Result<()> {
    let count = count.to_string();
    let mut argv = vec!["h2load", "-c", "1", "-t", "1", "-m", "8", "-n", &count];
    argv.extend(more);
    argv.extend(urls.iter().map(String::as_str));
    let output = from.exec_within(PATIENCE, &argv)?;
    let done = format!("{count} done");
    anyhow::ensure!(output.success()?.contains(&done), "{argv:?}: {output}");
    Ok(())
}

#[test]
fn long_bodies_on_one_connection_of_http2_between_two_pods_of_one_node_hide_no_request() -> Verdict {
    let mesh = Mesh::start()?;
    let server = mesh.join(nginx(&mesh, "web", "node-a")?)?;
    let asker = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    let urls = ["/huge", "/missing", "/", "/large"].map(|path| format!("http://{}:{HTTP2}{path}", server.ipv4()));
    ask_on_one_connection(&asker, 80, &[], &urls)?;
    counted(&mesh, "node-a", &[("response_code", "404")], 20.0)?;
    let metrics = counted(&mesh, "node-a", &[("response_code", "200")], 60.0)?;
    assert_eq!(metrics.sum("istio_requests_total", &[]), 80.0, "each of them once");
    let octets = 20 * (HUGE + LARGE + 10);
    assert_eq!(metrics.sum("istio_response_bytes_sum", &[("response_code", "200")]), octets as f64);

    let body = file(&mesh, "body", vec![0; HUGE])?;
    let urls = ["/taken", "/missing"].map(|path| format!("http://{}:{HTTP2}{path}", server.ipv4()));
    ask_on_one_connection(&asker, 40, &["-d", &body], &urls)?;
    counted(&mesh, "node-a", &[("response_code", "404")], 40.0)?;
    let metrics = counted(&mesh, "node-a", &[("response_code", "204")], 20.0)?;
    assert_eq!(metrics.sum("istio_requests_total", &[]), 120.0, "each of them once");
    let lost = ["direct_signal", "direct_signal_limit", "direct_frames"].map(|reason| mesh.events("node-a", reason));
    assert!(lost.iter().all(|lost| matches!(lost, Ok(0))), "{lost:?}");
    Ok(())
}

#[test]
fn kernel_long_messages_of_grpc_between_two_pods_of_one_node_hide_no_call() -> Verdict {
    let mesh = Mesh::start()?;
    let command = ["mesh-shop", "payment", "--listen", &format!("0.0.0.0:{HTTP2}")];
    let server = mesh.join(client("payment", "node-a").label("app", "payment").command(command).port("grpc", HTTP2))?;
    let asker = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    // What the server sends back is as long as what it is sent: the marker is in both.
    let marker = "m".repeat(300_000);
    let charges = [("good", "order-1"), ("bad", "")];
    let url = format!("http://{}:{HTTP2}/shop.v1.Payment/Charge", server.ipv4());
    for (name, order) in charges {
        let file = file(&mesh, name, message(&[(1, order), (3, "4111"), (4, &marker)]))?;
        let more = ["-d", &file, "-H", "content-type: application/grpc", "-H", "te: trailers"];
        ask_on_one_connection(&asker, 40, &more, std::slice::from_ref(&url))?;
    }
    let grpc = ("request_protocol", "grpc");
    counted(&mesh, "node-a", &[grpc, ("grpc_response_status", "0")], 40.0)?;
    let metrics = counted(&mesh, "node-a", &[grpc, ("grpc_response_status", "3")], 40.0)?;
    assert_eq!(metrics.sum("istio_requests_total", &[BY_NODE]), 80.0, "each of them once");
    assert!(metrics.sum("istio_request_bytes_sum", &[BY_NODE]) >= (80 * marker.len()) as f64);
    assert!(metrics.sum("istio_response_bytes_sum", &[BY_NODE]) >= (40 * marker.len()) as f64);
    assert_eq!(mesh.events("node-a", "direct_frames")?, 0);
    Ok(())
}

/// A file in the mesh's home: its path.
fn file(mesh: &Mesh, name: &str, content: Vec<u8>) -> anyhow::Result<String> {
    let file = mesh.lab.home().join(name);
    fs::write(&file, content)?;
    Ok(file.display().to_string())
}

/// One message of gRPC with these fields of texts, by their numbers.
fn message(fields: &[(u8, &str)]) -> Vec<u8> {
    let mut message = Vec::new();
    for (number, text) in fields {
        message.push(number << 3 | 2);
        let mut length = text.len();
        while length > 127 {
            message.push((length & 127) as u8 | 128);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend(text.as_bytes());
    }
    [&[0], &(message.len() as u32).to_be_bytes()[..], &message].concat()
}

#[test]
fn long_bodies_on_one_connection_of_http1_between_two_pods_of_one_node_hide_no_request() -> Verdict {
    let mesh = Mesh::start()?;
    let server = mesh.join(nginx(&mesh, "web", "node-a")?)?;
    let asker = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    get(&asker, &server, HTTP1, &["/huge", "/missing"].repeat(10))?;
    counted(&mesh, "node-a", &[("response_code", "404")], 10.0)?;
    let metrics = counted(&mesh, "node-a", &[("response_code", "200")], 10.0)?;
    assert_eq!(metrics.sum("istio_requests_total", &[]), 20.0, "each of them once");
    assert_eq!(metrics.sum("istio_response_bytes_sum", &[("response_code", "200")]), (10 * HUGE) as f64);
    Ok(())
}

#[test]
fn a_label_keeps_nodes_from_looking() -> Verdict {
    keeps_from_looking("node-b")
}

#[test]
fn a_label_keeps_direct_connections_from_being_looked_at() -> Verdict {
    keeps_from_looking("node-a")
}

/// With a server on this node, and its client on node-a.
fn keeps_from_looking(node: &str) -> Verdict {
    let mesh = Mesh::start()?;
    let unwatched = nginx(&mesh, "unwatched", node)?.label("mesh.dev/no-request-metrics", &HTTP1.to_string());
    let server = mesh.join(unwatched)?;
    let enrolled = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    get(&enrolled, &server, HTTP1, &["/"])?;
    get(&enrolled, &server, HTTP2, &["/"])?;
    let metrics = counted(&mesh, node, &[("destination_workload", "unwatched")], 1.0)?;
    assert_eq!(metrics.sum("istio_requests_total", &[]), 1.0, "of the port that the label does not name");
    Ok(())
}

#[test]
fn a_flag_keeps_one_node_from_looking_and_a_namespaces_label_all_of_them() -> Verdict {
    let mut mesh = Mesh::without_daemons()?;
    mesh.start_daemon_with("node-b", &["--no-request-metrics"])?;
    mesh.start_daemon("node-a")?;
    mesh.label()?;
    let off = mesh.join(nginx(&mesh, "off", "node-b")?)?;
    let on = mesh.join(nginx(&mesh, "on", "node-a")?)?;
    let (at_a, at_b) = (mesh.join(client("at-a", "node-a"))?, mesh.join(client("at-b", "node-b"))?);
    mesh.settle()?;
    get(&at_a, &off, HTTP1, &["/"])?;
    // What comes to be known at a connection's end is known when its line is written.
    mesh.told("node-b", 1)?;
    get(&at_b, &on, HTTP1, &["/"])?;
    counted(&mesh, "node-a", &[("destination_workload", "on")], 1.0)?;
    let count = |node: &str| Ok::<_, anyhow::Error>(mesh.metrics(node)?.sum("istio_requests_total", &[]));
    assert_eq!((count("node-a")?, count("node-b")?), (1.0, 0.0));

    mesh.lab.label_namespace(NAMESPACE, "mesh.dev/no-request-metrics", "all")?;
    mesh.settle()?;
    get(&at_b, &on, HTTP1, &["/"])?;
    // Both ends' of the connection from b, and the one to it.
    mesh.told("node-a", 3)?;
    assert_eq!(count("node-a")?, 1.0, "the namespace is not looked at");
    // A pod's own label comes before it.
    on.label("mesh.dev/no-request-metrics", "none")?;
    mesh.settle()?;
    get(&at_b, &on, HTTP1, &["/"])?;
    counted(&mesh, "node-a", &[("destination_workload", "on")], 2.0)?;
    Ok(())
}

#[test]
fn flows_of_slow_requests_are_those_that_took_so_long() -> Verdict {
    let mesh = Mesh::start()?;
    let listen = format!("0.0.0.0:{HTTP1}");
    let command = ["mesh-traffic", "http", "--name", "web", "--listen", &listen];
    let server = mesh.join(client("web", "node-b").label("app", "web").command(command).port("http", HTTP1))?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    // One of either kind after the other, as long as the test goes on.
    let url = format!("http://{}:{HTTP1}", server.ipv4());
    let script = format!("while :; do curl -s -m 9 {url}/quick; curl -s -m 9 {url}/slow/400; done");
    let _asking = client.spawn(&["bash", "-c", &script])?;
    let flows = |slow: &str| {
        let arguments =
            ["flows", "-o", "json", "--pod", "web", "--code", "200", "--count", "6", "--for", "60", "--slow", slow];
        let output = ctl(&mesh, "node-b", &arguments)?;
        let lines = output.success()?.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
        let took = |flow: &Value| flow["request"]["durationMicroseconds"].as_u64().unwrap_or_default();
        Ok::<_, anyhow::Error>(lines.iter().map(took).collect::<Vec<_>>())
    };
    let slow = flows("400")?;
    assert!(slow.len() == 6 && slow.iter().all(|took| *took >= 400_000), "{slow:?}");
    let all = flows("0")?;
    assert!(all.len() == 6 && all.iter().any(|took| *took < 400_000), "{all:?}");
    Ok(())
}

#[test]
fn what_a_shop_does_is_seen_without_a_waypoint() -> Verdict {
    let mesh = Mesh::start()?;
    let _shop = Shop::open(&mesh)?;
    let all = |labels: &[(&str, &str)]| {
        wait_until(&format!("requests with {labels:?}"), PATIENCE, || {
            let labels = [&[BY_NODE], labels].concat();
            let sum = mesh.metrics("node-a")?.sum("istio_requests_total", &labels)
                + mesh.metrics("node-b")?.sum("istio_requests_total", &labels);
            Ok((sum > 0.0).then_some(()))
        })
    };
    all(&[("request_protocol", "http"), ("response_code", "200")])?;
    all(&[("request_protocol", "grpc"), ("response_code", "200"), ("grpc_response_status", "0")])?;
    Ok(())
}
