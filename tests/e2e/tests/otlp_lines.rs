//! Lines of connections at collectors that Telemetries name: the fields of the log, filters, and a collector that is away.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use mesh_e2e::{Collector, Connect, Mesh, NAMESPACE, NODES, PATIENCE, Verdict, client, connections, port, server};
use mesh_lab::{Place as _, Pod, PodSpec, Service, ServiceSpec, wait_until};
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use serde_json::{Map, Value};

/// The collector, and one whose Service has no endpoint.
const PROVIDERS: &str = "- name: otel
  envoyOtelAls: {service: collector.app.svc.cluster.local, port: 4317}
- name: away
  envoyOtelAls: {service: nobody.app.svc.cluster.local, port: 4317}
";

/// What is told of connections in all of the mesh.
fn telemetry(logging: &str) -> String {
    format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: mesh, namespace: istio-system}}\nspec:\n  \
         accessLogging: {logging}\n"
    )
}

/// A client on node a, a server on node b, and a collector in a pod of the mesh.
struct Scene {
    collector: Collector,
    client: Pod,
    server: Pod,
    service: Service,
    mesh: Mesh,
}

impl Scene {
    fn start(logging: &str) -> Result<Self> {
        let mesh = Mesh::start()?;
        let server = mesh.join(server("server", NODES[1]))?;
        let spec = ServiceSpec::new(NAMESPACE, "server").select("app", "server");
        let service = mesh.lab.service(spec.port("tcp", 80, port::ECHO))?;
        let client = mesh.join(client("client", NODES[0]))?;
        let pod = mesh.join(PodSpec::new(NAMESPACE, "collector").on(NODES[1]).label("app", "collector"))?;
        let collector = Collector::start_in(&pod)?;
        let spec = ServiceSpec::new(NAMESPACE, "collector").select("app", "collector");
        mesh.lab.service(spec.port("grpc", 4317, collector.port()))?;
        mesh.lab.service(ServiceSpec::new(NAMESPACE, "nobody").select("app", "nobody").port("grpc", 4317, 4317))?;
        mesh.provide(PROVIDERS)?;
        mesh.lab.apply("telemetry.yaml", &telemetry(logging))?;
        mesh.settle()?;
        Ok(Self { collector, client, server, service, mesh })
    }

    /// The bodies of the lines that came, of connections to the server.
    fn lines(&self) -> Result<Vec<Map<String, Value>>> {
        let body = |record: LogRecord| {
            let Some(any_value::Value::StringValue(text)) = record.body.and_then(|body| body.value) else {
                anyhow::bail!("no text");
            };
            let Value::Object(line) = serde_json::from_str(&text)? else { anyhow::bail!("no object: {text}") };
            let known = line.values().filter(|value| !value.is_null()).count();
            anyhow::ensure!(record.attributes.len() == known, "{text}: {:?}", record.attributes);
            Ok(line)
        };
        let all = self.collector.lines().into_iter().map(body).collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().filter(|line| line["destination_pod"] == "app/server").collect())
    }

    fn told(&self, node: &str, result: &str) -> Result<f64> {
        Ok(self.mesh.metrics(node)?.sum("mesh_log_lines_total", &[("result", result)]))
    }
}

#[test]
fn lines_of_both_nodes_reach_a_collector_in_the_mesh_with_the_fields_of_the_log() -> Verdict {
    let scene = Scene::start("[{providers: [{name: envoy}, {name: otel}]}]")?;
    Connect::to(scene.service.at(80)).answered(&scene.client)?;
    for (node, reporter) in NODES.into_iter().zip(["source", "destination"]) {
        let sent = wait_until("its line at the collector", PATIENCE, || {
            Ok(scene.lines()?.into_iter().find(|line| line["reporter"] == reporter))
        })?;
        assert_eq!(sent["source_principal"], "spiffe://cluster.local/ns/app/sa/client", "{sent:?}");
        let logged = connections(scene.mesh.daemon(node)?).into_iter();
        let mut logged = logged.filter(|line| line["reporter"] == reporter && line["source"] == sent["source"]);
        let logged = logged.next().context("no such line in the log")?;
        let Value::Object(logged) = logged else { panic!("{logged}") };
        let of_log = ["timestamp", "level", "message"];
        let logged: Map<_, _> = logged.into_iter().filter(|(key, _)| !of_log.contains(&&**key)).collect();
        let sent: Map<_, _> = sent.into_iter().filter(|(_, value)| !value.is_null()).collect();
        assert_eq!(sent, logged);
        wait_until("it to be counted", PATIENCE, || Ok((scene.told(node, "exported")? >= 1.0).then_some(())))?;
    }
    Ok(())
}

#[test]
fn a_share_of_connections_has_lines_and_what_failed_has_one_in_any_case() -> Verdict {
    const CONNECTIONS: usize = 60;
    let scene = Scene::start("[{providers: [{name: otel}]}]")?;
    let sampled = telemetry("[{providers: [{name: otel}]}]").replace(
        "namespace: istio-system",
        "namespace: istio-system, annotations: {mesh.dev/access-log-sampling: '50'}",
    );
    scene.mesh.lab.apply("telemetry.yaml", &sampled)?;
    scene.mesh.settle()?;
    let (server, closed) = (scene.service.at(80), SocketAddr::new(scene.server.ipv4(), 1));
    for _ in 0..CONNECTIONS {
        Connect::to(server).answered(&scene.client)?;
    }
    for _ in 0..5 {
        Connect::to(closed).run(&scene.client)?;
    }
    let of = |lines: &[Map<String, Value>], reporter: &str, end: &str| {
        lines.iter().filter(|line| line["reporter"] == reporter && line["end"] == end).count()
    };
    let told = wait_until("the lines of all that failed", PATIENCE, || {
        let lines = scene.lines()?;
        Ok(["source", "destination"].iter().all(|end| of(&lines, end, "unreachable") >= 5).then_some(lines))
    });
    let told = told.with_context(|| format!("{:?}", scene.lines()))?;
    for reporter in ["source", "destination"] {
        // Of 60 throws of a fair coin, fewer than 12 of one side come once in a million times.
        let share = of(&told, reporter, "closed");
        assert!((12..=48).contains(&share), "{share} lines of {reporter}");
    }
    Ok(())
}

#[test]
fn filters_choose_the_connections_and_a_collector_that_is_away_costs_lines_alone() -> Verdict {
    let logging =
        "[{providers: [{name: otel}], filter: {expression: '!connection.mtls'}}, {providers: [{name: away}]}]";
    let scene = Scene::start(logging)?;
    let outside = scene.mesh.lab.outside("outside")?;
    let server = SocketAddr::new(scene.server.ipv4(), port::ECHO);
    Connect::to(scene.service.at(80)).answered(&scene.client)?;
    Connect::to(server).answered(&outside)?;
    let came = wait_until("the plaintext connection's line", PATIENCE, || {
        let lines = scene.lines()?;
        Ok((!lines.is_empty()).then_some(lines))
    })?;
    // That of mutual TLS was over before it.
    assert!(came.iter().all(|line| line["security"] == "none"), "{came:?}");
    for node in NODES {
        wait_until("lines for who is away to be counted", PATIENCE, || {
            Ok((scene.told(node, "failed")? >= 1.0).then_some(()))
        })?;
        let logged = connections(scene.mesh.daemon(node)?);
        let since: Vec<_> = logged.iter().filter(|line| line["destination_pod"] == "app/server").collect();
        assert!(since.is_empty(), "standard output is not among the providers: {since:?}");
    }
    Connect::to(scene.service.at(80)).answered(&scene.client)?;
    // Who says nothing of lines has them at standard output again.
    scene.mesh.lab.apply("telemetry.yaml", &telemetry("[]"))?;
    scene.mesh.settle()?;
    Connect::to(scene.service.at(80)).answered(&scene.client)?;
    wait_until("a line in the log", PATIENCE, || {
        let mut logged = connections(scene.mesh.daemon(NODES[0])?).into_iter();
        Ok(logged.any(|line| line["destination_pod"] == "app/server").then_some(()))
    })?;
    Ok(())
}
