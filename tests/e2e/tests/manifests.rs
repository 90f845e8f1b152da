//! Manifests as people have them, each on live traffic: what they say is what happens.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mesh_e2e::{Connect, Mesh, PATIENCE, Verdict, Waypoint};
use mesh_lab::{Place as _, Pod, PodSpec, ServiceSpec, wait_until};

const DEFAULT: &str = "default";
const PORT: u16 = 8080;

/// A file of the guide, as it is.
fn guide(name: &str) -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/mesh-config/fixtures/istio-guide");
    std::fs::read_to_string(folder.join(name)).with_context(|| format!("reading {name}"))
}

/// A pod that serves HTTP as one version of an application.
fn application(namespace: &str, app: &str, version: &str, more: &[&str]) -> PodSpec {
    let name = format!("{app}-{version}");
    let listen = format!("[::]:{PORT}");
    let command: Vec<&str> = ["mesh-traffic", "http", "--listen", &listen, "--name", &name]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    let spec = PodSpec::new(namespace, &name).on("node-b").service_account(app).label("app", app);
    spec.label("version", version).command(command).port("http", PORT)
}

/// A Service with a waypoint, the guide's files in force, and a client.
struct Scene {
    mesh: Mesh,
    client: Pod,
    url: String,
}

impl Scene {
    /// `pods` are the applications behind the Service `app` of the namespace `default`.
    fn set(app: &str, pods: Vec<PodSpec>, files: &[&str]) -> Result<Self> {
        let mesh = Mesh::without_labels()?;
        mesh.lab.label_namespace(DEFAULT, "mesh.dev/join", "enabled")?;
        for pod in pods {
            mesh.join(pod)?;
        }
        let service = ServiceSpec::new(DEFAULT, app).select("app", app).port("http", 80, PORT);
        let service = mesh.lab.service(service)?;
        let client = mesh.join(PodSpec::new(DEFAULT, "client").on("node-a").service_account("client"))?;
        for file in files {
            mesh.lab.apply(file, &guide(file)?)?;
        }
        let waypoint = Waypoint::declare_in(&mesh, DEFAULT, "waypoint")?;
        waypoint.serve_namespace(&mesh)?;
        // It is ready once it has read all of that.
        waypoint.replica(&mesh, "waypoint-1", "node-a")?;
        mesh.settle()?;
        Ok(Self { url: format!("http://{}", service.at(80)), mesh, client })
    }

    /// Status, server and seconds of every request; the path may be one of curl's ranges.
    fn get(&self, path: &str, more: &[&str]) -> Result<Vec<(u16, String, f64)>> {
        let url = format!("{}{path}", self.url);
        let format = "%{http_code} %header{x-served-by} %{time_total}\n";
        let mut argv = vec!["curl", "--silent", "--show-error", "--output", "/dev/null", "--write-out", format];
        argv.extend(more);
        argv.push(&url);
        let output = self.client.exec_within(PATIENCE * 2, &argv)?;
        let text = output.stdout.clone();
        let line = |line: &str| {
            let mut words = line.split(' ');
            let status = words.next()?.parse().ok()?;
            let server = words.next()?.to_owned();
            Some((status, server, words.next()?.parse().ok()?))
        };
        let answers: Option<Vec<_>> = text.lines().map(line).collect();
        answers.filter(|answers| !answers.is_empty()).with_context(|| format!("curl {url}: {output:?}"))
    }

    fn one(&self, path: &str) -> Result<(u16, String, f64)> {
        self.get(path, &[])?.pop().context("an answer")
    }

    /// How often the server was asked for a path.
    fn seen(&self, path: &str) -> Result<u32> {
        let url = format!("{}/seen{path}", self.url);
        let output = self.client.exec_within(PATIENCE, &["curl", "--silent", "--show-error", &url])?;
        output.stdout.trim().parse().with_context(|| format!("{output:?}"))
    }
}

#[test]
fn a_canary_gets_its_share() -> Verdict {
    let pods = vec![application(DEFAULT, "checkout", "v1", &[]), application(DEFAULT, "checkout", "v2", &[])];
    let scene = Scene::set("checkout", pods, &["virtualservice-canary.yaml"])?;
    let answers = scene.get("/item/[1-400]", &[])?;
    assert!(answers.iter().all(|(status, ..)| *status == 200), "{answers:?}");
    let canary = answers.iter().filter(|(_, server, _)| server == "checkout-v2").count();
    let stable = answers.iter().filter(|(_, server, _)| server == "checkout-v1").count();
    assert_eq!(canary + stable, 400, "{answers:?}");
    // A tenth of 400, give or take five standard deviations (of 6).
    assert!((10..=70).contains(&canary), "{canary} of 400");
    Ok(())
}

#[test]
fn a_timeout_ends_what_takes_longer() -> Verdict {
    let scene =
        Scene::set("inventory", vec![application(DEFAULT, "inventory", "v1", &[])], &["virtualservice-timeout.yaml"])?;
    let (status, _, seconds) = scene.one("/slow/1000/fast-enough")?;
    assert!(status == 200 && seconds >= 1.0, "{status} after {seconds} s");
    let (status, _, seconds) = scene.one("/slow/20000/too-slow")?;
    assert!(status == 504 && (3.0..15.0).contains(&seconds), "{status} after {seconds} s");
    Ok(())
}

#[test]
fn retries_are_as_many_as_asked_for_and_each_has_its_time() -> Verdict {
    let scene =
        Scene::set("payment", vec![application(DEFAULT, "payment", "v1", &[])], &["virtualservice-retries.yaml"])?;
    assert_eq!(scene.one("/fail/3/recovers")?.0, 200);
    assert_eq!(scene.seen("/fail/3/recovers")?, 4);
    assert_eq!(scene.one("/fail/9/stays-ill")?.0, 503);
    assert_eq!(scene.seen("/fail/9/stays-ill")?, 4, "the first attempt and three more");
    let begun = Instant::now();
    assert_eq!(scene.one("/slow/20000/hangs")?.0, 504);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(8) && took < Duration::from_secs(20), "four times 2 s: {took:?}");
    assert_eq!(scene.seen("/slow/20000/hangs")?, 4);
    Ok(())
}

#[test]
fn a_fault_delays_its_share() -> Verdict {
    let scene =
        Scene::set("payment", vec![application(DEFAULT, "payment", "v1", &[])], &["virtualservice-fault.yaml"])?;
    let answers = scene.get("/item/[1-200]", &["--parallel", "--parallel-immediate", "--parallel-max", "200"])?;
    assert!(answers.iter().all(|(status, ..)| *status == 200), "{answers:?}");
    let delayed = answers.iter().filter(|(.., seconds)| *seconds >= 5.0).count();
    // A tenth of 200, give or take four and a half standard deviations (of 4.2).
    assert!((1..=39).contains(&delayed), "{delayed} of {}", answers.len());
    Ok(())
}

#[test]
fn a_circuit_opens_for_an_endpoint_that_fails() -> Verdict {
    let pods =
        vec![application(DEFAULT, "payment", "v1", &[]), application(DEFAULT, "payment", "v2", &["--status", "503"])];
    let scene = Scene::set("payment", pods, &["destinationrule-circuit-breaker.yaml"])?;
    let before = scene.get("/item/[1-100]", &[])?;
    let failed = before.iter().filter(|(status, ..)| *status == 503).count();
    // Five in a row of one endpoint, of at most one more for each of the waypoint's workers.
    assert!((5..=20).contains(&failed), "{failed} of 100 failed before the circuit opened");
    let after = scene.get("/item/[1-100]", &[])?;
    assert!(after.iter().all(|(status, server, _)| *status == 200 && server == "payment-v1"), "{after:?}");
    Ok(())
}

#[test]
fn a_host_of_the_outside_leads_to_the_service_that_it_is_routed_to() -> Verdict {
    let pods = vec![application(DEFAULT, "frontend", "v1", &[]), application(DEFAULT, "checkout", "v1", &[])];
    let scene = Scene::set("checkout", pods, &["virtualservice-frontend.yaml"])?;
    scene.mesh.lab.service(ServiceSpec::new(DEFAULT, "frontend").select("app", "frontend").port("http", 80, PORT))?;
    scene.mesh.settle()?;
    let served = |host: &str| -> Result<String> {
        let header = format!("host: {host}");
        Ok(scene.get("/", &["--header", &header])?.pop().context("an answer")?.1)
    };
    wait_until("the route to be in force", PATIENCE, || {
        Ok((served("frontend.example.com")? == "frontend-v1").then_some(()))
    })?;
    assert_eq!(served("checkout")?, "checkout-v1");
    assert_eq!(served("other.example.com")?, "checkout-v1", "it is nobody's name: the Service that was asked answers");
    Ok(())
}

#[test]
fn mutual_tls_is_what_carries_it() -> Verdict {
    let pods = vec![application(DEFAULT, "checkout", "v1", &[])];
    let scene = Scene::set("checkout", pods, &["destinationrule-mtls.yaml"])?;
    assert_eq!(scene.one("/")?.0, 200);
    for node in ["node-a", "node-b"] {
        let opened = |policy: &str| -> Result<f64> {
            let labels = [("connection_security_policy", policy)];
            Ok(scene.mesh.metrics(node)?.sum("istio_tcp_connections_opened_total", &labels))
        };
        wait_until("a connection over mTLS", PATIENCE, || Ok((opened("mutual_tls")? > 0.0).then_some(())))?;
        assert!(opened("none")? == 0.0, "nothing goes as plaintext on {node}");
    }
    Ok(())
}

/// In the namespace `production`, payment behind its Service, and clients with and without its trust.
fn production(files: &[&str]) -> Result<(Mesh, std::net::SocketAddr)> {
    let mesh = Mesh::without_labels()?;
    mesh.lab.label_namespace("production", "mesh.dev/join", "enabled")?;
    mesh.join(application("production", "payment", "v1", &[]))?;
    let service = ServiceSpec::new("production", "payment").select("app", "payment").port("http", 80, PORT);
    let at = mesh.lab.service(service)?.at(80);
    for file in files {
        mesh.lab.apply(file, &guide(file)?)?;
    }
    mesh.settle()?;
    Ok((mesh, at))
}

fn status(place: &impl mesh_lab::Place, at: std::net::SocketAddr) -> Result<String> {
    let url = format!("http://{at}/");
    let argv = ["curl", "--silent", "--max-time", "10", "--output", "/dev/null", "--write-out", "%{http_code}", &url];
    Ok(place.exec_within(PATIENCE, &argv)?.stdout)
}

#[test]
fn strict_refuses_who_has_no_identity() -> Verdict {
    let (mesh, at) = production(&["peerauthentication-strict.yaml"])?;
    let client = mesh.join(PodSpec::new("production", "client").on("node-a").service_account("client"))?;
    let outside = mesh.lab.deploy(PodSpec::new("outside", "client").on("node-a").service_account("client"))?;
    mesh.settle()?;
    assert_eq!(status(&client, at)?, "200");
    assert_eq!(status(&outside, at)?, "000");
    Ok(())
}

#[test]
fn only_the_order_service_reaches_payment() -> Verdict {
    let (mesh, at) = production(&["authorizationpolicy-payment.yaml"])?;
    let account = |name: &str, account: &str| PodSpec::new("production", name).on("node-a").service_account(account);
    let order = mesh.join(account("order", "order-service"))?;
    let other = mesh.join(account("other", "cart-service"))?;
    mesh.settle()?;
    assert_eq!(status(&order, at)?, "200");
    assert_eq!(status(&other, at)?, "000");
    assert!(Connect::to(at).run(&other)?.was_refused(), "it is a reset");
    Ok(())
}
