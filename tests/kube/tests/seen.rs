//! A cluster seen by a kubeconfig alone: the page, which follows who comes and goes, one traced request, and Services live.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::ctl::Ctl;
use mesh_kube_cluster::mesh::{Mesh, NAMESPACE as MESH, install_gateway_api};
use mesh_kube_cluster::{Cluster, Kubectl};
use mesh_lab::wait_until;
use serde_json::Value;

const NAMESPACE: &str = "seen";

/// A running `mesh-ctl dashboard`, and what it told last; killed when dropped.
struct Page {
    process: Child,
    told: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Page {
    fn serve(ctl: &Ctl) -> Result<Self> {
        let mut process = ctl.command(&["dashboard"]).stdout(Stdio::piped()).spawn().context("starting mesh-ctl")?;
        let mut url = String::new();
        BufReader::new(process.stdout.take().context("no output")?).read_line(&mut url)?;
        let page = Self { process, told: Arc::default() };
        let (address, token) = url.trim().split_once("/#token=").context("no address")?;
        page.follow(address.trim_start_matches("http://"), token)?;
        Ok(page)
    }

    /// The one in the cluster, through a port that kubectl forwards.
    fn forwarded(kubectl: &Kubectl, token: &str) -> Result<Self> {
        let arguments = ["-n", MESH, "port-forward", "service/mesh-dashboard", ":80"];
        let mut process = kubectl.command(&arguments).stdout(Stdio::piped()).spawn().context("starting kubectl")?;
        let mut line = String::new();
        let mut said = BufReader::new(process.stdout.take().context("no output")?);
        said.read_line(&mut line)?;
        // It says more with each connection, and ends where nobody reads that.
        thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let page = Self { process, told: Arc::default() };
        let address = line.split_whitespace().nth(2).with_context(|| line.clone())?;
        page.follow(address, token)?;
        Ok(page)
    }

    /// Reads what it tells, from now on.
    fn follow(&self, address: &str, token: &str) -> Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let request = "GET /api/stream HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer";
        write!(stream, "{request} {token}\r\n\r\n")?;
        let told = self.told.clone();
        thread::spawn(move || {
            let mut event = String::new();
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if let Some(name) = line.strip_prefix("event: ") {
                    event = name.to_owned();
                } else if let Some(value) = line.strip_prefix("data: ").and_then(|it| serde_json::from_str(it).ok()) {
                    told.lock().unwrap_or_else(PoisonError::into_inner).insert(event.clone(), value);
                }
            }
        });
        Ok(())
    }

    /// Waits until what is told of such an event last is as wanted.
    fn wait<T>(&self, what: &str, event: &str, wanted: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let last = || self.told.lock().unwrap_or_else(PoisonError::into_inner).get(event).cloned().unwrap_or_default();
        wait_until(what, 3 * PATIENCE, || Ok(wanted(&last()))).with_context(|| format!("{:#}", last()))
    }

    fn shows(&self, way: &str) -> Result<()> {
        self.wait(&format!("an edge as {way}"), "graph", |graph| {
            let (from, to) = (format!("{NAMESPACE}/client"), format!("{NAMESPACE}/cart"));
            let mut edges = graph["edges"].as_array()?.iter();
            edges.any(|edge| edge["from"] == from && edge["to"] == to && edge["way"] == way).then_some(())
        })
    }

    /// Waits until both nodes are told of without an error; since how many seconds a node's daemon runs.
    fn nodes_answer(&self, node: &str) -> Result<u64> {
        self.wait("both nodes to answer", "mesh", |mesh| {
            let nodes = mesh["nodes"].as_array()?;
            let is_well = |it: &Value| it["error"].is_null() && it["status"].is_object();
            let names: Vec<_> = nodes.iter().filter(|it| is_well(it)).map(|it| &it["name"]).collect();
            let wanted = nodes.iter().find(|it| it["name"] == node)?;
            (names == ["node-a", "node-b"]).then(|| wanted["status"]["uptimeSeconds"].as_u64())?
        })
    }

    fn proxies(&self, wanted: &[&str]) -> Result<()> {
        self.wait(&format!("{wanted:?} to be told of"), "mesh", |mesh| {
            let gateways: Vec<_> = mesh["proxies"].as_array()?.iter().map(|it| &it["status"]["gateway"]).collect();
            (gateways == wanted).then_some(())
        })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_kubeconfig_shows_who_comes_and_goes_each_hop_of_a_request_and_every_service() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let (kubectl, ctl) = (cluster.kubectl(), Ctl::on(&cluster)?);
    install_gateway_api(&cluster)?;
    let mesh = Mesh::installed(&cluster, &[])?;
    let shop = Apps::cart_and_client(&mesh, &kubectl, NAMESPACE)?;
    under_traffic(&shop, || all_is_seen(&cluster, &ctl, &mesh)).with_context(|| mesh.logs())
}

/// While the client asks the cart without end.
fn under_traffic(shop: &Apps, seen: impl FnOnce() -> Result<()>) -> Result<()> {
    let (service, stop) = (shop.service("cart")?, AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // What comes of it is told by the mesh.
                let _ = shop.get("client", service, "/");
            }
        });
        let seen = seen();
        stop.store(true, Ordering::Relaxed);
        seen
    })
}

#[test]
fn the_page_in_the_cluster_is_reached_by_a_port_forward_alone_and_may_do_no_more_than_it_needs() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let (kubectl, ctl) = (cluster.kubectl(), Ctl::on(&cluster)?);
    install_gateway_api(&cluster)?;
    // Its rights are in the namespace, which has to be there.
    let shop = Apps::new(&kubectl, NAMESPACE)?;
    shop.label("mesh.dev/join=enabled")?;
    let values = ["dashboard.enabled=true", "dashboard.namespaces={seen}"];
    let mesh = Mesh::installed(&cluster, &values)?;
    shop.deploy_http("cart", "node-b")?;
    shop.deploy("client", "node-a")?;
    ctl.ok(&["waypoint", "apply", "-n", NAMESPACE, "--enrol-namespace", "--wait"])?;
    let token = token(&kubectl)?;
    under_traffic(&shop, || {
        let page = Page::forwarded(&kubectl, &token)?;
        page.nodes_answer("node-a")?;
        page.proxies(&["seen/waypoint"])?;
        page.shows("waypoint")
    })
    .with_context(|| mesh.logs())?;

    let pods = kubectl.get(&["-n", MESH, "pods", "-l", "app.kubernetes.io/name=mesh-dashboard"])?;
    let address = pods["items"][0]["status"]["podIP"].as_str().context("it has no address")?;
    let connect = format!("exec 3<>/dev/tcp/{address}/8080");
    let output = cluster.on_node("node-a", &["bash", "-c", &connect])?.output().context("starting nsenter")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("Connection refused"), "it is reached at {address}: {said}");
    for (what, may) in [
        (["list", "pods", "--subresource=", "-n", NAMESPACE], true),
        (["create", "pods", "--subresource=portforward", "-n", NAMESPACE], true),
        (["create", "pods", "--subresource=portforward", "-n", "default"], false),
        (["create", "pods", "--subresource=exec", "-n", MESH], false),
        (["get", "secrets", "--subresource=", "-n", MESH], false),
    ] {
        let account = format!("--as=system:serviceaccount:{MESH}:mesh-dashboard");
        let words = [&["auth", "can-i"], &what[..], &[&account]].concat();
        let output = kubectl.command(&words).output().context("starting kubectl")?;
        ensure!(output.status.success() == may, "{what:?}");
    }
    mesh.install(&values)?;
    ensure!(self::token(&kubectl)? == token, "an upgrade made another token");
    Ok(())
}

/// What its Secret has.
fn token(kubectl: &Kubectl) -> Result<String> {
    let template = "go-template={{.data.token | base64decode}}";
    let token = kubectl.run(&["-n", MESH, "get", "secret", "mesh-dashboard", "-o", template])?;
    ensure!(token.len() == 32, "{token:?}");
    Ok(token)
}

fn all_is_seen(cluster: &Cluster, ctl: &Ctl, mesh: &Mesh) -> Result<()> {
    let page = Page::serve(ctl)?;
    page.shows("hbone")?;
    page.proxies(&[])?;
    page.nodes_answer("node-b")?;
    hops(ctl, &["node", "server"])?;

    ctl.ok(&["waypoint", "apply", "-n", NAMESPACE, "--enrol-namespace", "--wait"])?;
    page.proxies(&["seen/waypoint"])?;
    page.shows("waypoint")?;
    hops(ctl, &["node", "waypoint", "server"])?;
    every_service_is_in_top(ctl)?;

    let before = mesh.daemon("node-b")?;
    cluster.kubectl().run(&["-n", MESH, "delete", "pod", &before])?;
    wait_until("another daemon", PATIENCE, || Ok(mesh.daemon("node-b").ok().filter(|daemon| *daemon != before)))?;
    let old = page.nodes_answer("node-a")?;
    let young = page.nodes_answer("node-b")?;
    ensure!(young < old, "the daemon of node-b runs for {young} s, that of node-a for {old} s");

    cluster.kill_api_server()?;
    page.wait("the page to say that nobody is reached", "mesh", |mesh| {
        mesh["nodes"].as_array()?.iter().all(|node| node["error"].is_string()).then_some(())
    })?;
    cluster.start_api_server()?;
    page.nodes_answer("node-b")?;
    page.shows("waypoint")?;
    ctl.ok(&["waypoint", "delete", "waypoint", "-n", NAMESPACE])?;
    page.proxies(&[])
}

/// Sends a request, which each of these tells of.
fn hops(ctl: &Ctl, wanted: &[&str]) -> Result<()> {
    let url = format!("http://cart.{NAMESPACE}/items?secret=1");
    let question = ["trace-request", "GET", &url, "--from", "seen/client", "-H", "x-secret: hidden"];
    let report = ctl.json(&question)?;
    let told: Vec<_> = report["hops"].as_array().into_iter().flatten().map(|hop| &hop["by"]).collect();
    ensure!(told == wanted && report["status"] == 200 && report["silent"].is_null(), "{report:#}");
    ensure!(report["source"]["node"] == "node-a" && report["source"]["pod"] == "client", "{report:#}");
    let text = ctl.ok(&question)?;
    ensure!(text.contains("client     seen/client") && text.contains("answer     200"), "{text}");
    let said = ctl.run(&[&question[..], &["--peer", "/nowhere"]].concat())?;
    ensure!(said.code == 2 && said.err.contains("sockets of this machine"), "{said:?}");
    Ok(())
}

/// Requests that a waypoint alone sees, without the namespace being named.
fn every_service_is_in_top(ctl: &Ctl) -> Result<()> {
    let top = ["top", "--once", "--interval", "3"];
    wait_until("the cart's requests in top", PATIENCE, || {
        let rows = ctl.json(&top)?;
        let mut rows = rows.as_array().context("no rows")?.iter();
        let cart = rows.find(|row| row["namespace"] == NAMESPACE && row["service"] == "cart");
        Ok(cart.filter(|row| row["requestsPerSecond"].as_f64() > Some(0.0)).map(drop))
    })?;
    // As a person sees it.
    let own = ctl.command(&top);
    let words: Vec<_> =
        std::iter::once(own.get_program()).chain(own.get_args()).map(|it| it.to_string_lossy()).collect();
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &format!("stty cols 80; exec {}", words.join(" ")), "/dev/null"]);
    for (name, value) in own.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    let shown = terminal.stdin(Stdio::null()).output().context("starting script")?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(shown.contains("NAMESPACE") && shown.contains("cart"), "{shown}");
    ensure!(shown.lines().all(|line| line.trim_end().chars().count() <= 80), "{shown}");
    Ok(())
}
