//! Requests under load while replicas of their waypoint come and go, and while rules change: none is lost.

use anyhow::{Context as _, Result};
use mesh_e2e::{Mesh, NAMESPACE, PATIENCE, Verdict, Waypoint, client};
use mesh_lab::{Pod, Process, Service, ServiceSpec};

/// Requests of each client; the changes are made while they last.
const REQUESTS: usize = 4_000;
const CLIENTS: usize = 2;

/// A rule that is another each time, and never changes what requests are answered.
fn rules(number: usize) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: product, namespace: app}}\n\
         spec: {{host: product, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {}}}}}}}}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: product, namespace: app}}\n\
         spec: {{hosts: [product], http: [{{route: [{{destination: {{host: product}}}}], timeout: {}s}}]}}\n---\n\
         apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: product, namespace: app}}\n\
         spec: {{targetRefs: [{{group: '', kind: Service, name: product}}], rules: [{{to: [{{operation: {{methods: [GET, M{number}]}}}}]}}]}}\n",
        1_000 + number,
        20 + number
    )
}

fn product(mesh: &Mesh) -> Result<Service> {
    let spec = client("product", "node-b").label("app", "product").port("http", 8080);
    mesh.join(spec.command(["mesh-shop", "product", "--listen", "[::]:8080"]))?;
    mesh.lab.service(ServiceSpec::new(NAMESPACE, "product").select("app", "product").port("http", 80, 8080))
}

fn load(from: &Pod, to: &Service) -> Result<Process> {
    use mesh_lab::Place as _;
    let (to, count) = (to.at(80).to_string(), REQUESTS.to_string());
    from.spawn(&["mesh-traffic", "get", "--to", &to, "--count", &count, "--timeout", "30", "/healthz"])
}

#[test]
fn no_request_is_lost_while_replicas_come_and_go_and_rules_change() -> Verdict {
    let mesh = Mesh::start()?;
    let service = product(&mesh)?;
    let from = mesh.join(client("client", "node-a"))?;
    let waypoint = Waypoint::declare_in(&mesh, NAMESPACE, "waypoint")?;
    let mut replicas = vec![waypoint.replica(&mesh, "waypoint-0", "node-a")?];
    waypoint.serve_namespace(&mesh)?;
    mesh.settle()?;
    let mut clients = (0..CLIENTS).map(|_| load(&from, &service)).collect::<Result<Vec<_>>>()?;
    let mut changes = 0;
    // As long as there is load, and at least three times, a replica comes and the one before it goes.
    while changes < 3 || running(&mut clients)? {
        changes += 1;
        let node = if changes % 2 == 0 { "node-a" } else { "node-b" };
        replicas.push(waypoint.replica(&mesh, &format!("waypoint-{changes}"), node)?);
        mesh.lab.apply("rules.yaml", &rules(changes))?;
        mesh.settle()?;
        // It leaves as a pod does that is given time for it: clients are led elsewhere before it ends.
        let old = replicas.remove(0);
        old.set_ready(false)?;
        mesh.settle()?;
        assert_eq!(old.terminate(PATIENCE)?.code, Some(0), "it drains and ends well");
        old.delete()?;
    }
    for client in &mut clients {
        let output = client.wait(PATIENCE)?;
        let report = output.json().context("the client's report")?;
        let answers = report["answers"].as_object().context("answers")?;
        let all_well = answers.len() == 1 && answers.keys().all(|answer| answer.starts_with("200"));
        assert!(all_well, "after {changes} changes: {report}; at the client's node:\n{}", unwell(&mesh)?);
    }
    Ok(())
}

/// The lines of connections that did not end as they should.
fn unwell(mesh: &Mesh) -> Result<String> {
    let log = mesh.daemon("node-a")?.logs();
    let is_unwell = |line: &&str| line.contains("app/client") && !line.contains(r#""end":"closed""#);
    Ok(log.lines().filter(is_unwell).collect::<Vec<_>>().join("\n"))
}

fn running(clients: &mut [Process]) -> Result<bool> {
    let ended = clients.iter_mut().map(|client| Ok(client.status()?.is_some())).collect::<Result<Vec<_>>>()?;
    Ok(ended.contains(&false))
}
