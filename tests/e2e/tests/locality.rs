//! Where connections go by where pods are: at nodes, in their kernels and through waypoints.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use mesh_e2e::{Connect, Mesh, NAMESPACE, PATIENCE, Verdict, Waypoint, client, connections, ctl_json, port, server};
use mesh_lab::{Place as _, Pod, Service, ServiceSpec, wait_until};

/// Connections that tell one server from two: of fair throws, so many fall alike once in eight million times.
const CONNECTIONS: usize = 24;

/// A client on node a, and a server on each node, behind one Service.
struct Scene {
    mesh: Mesh,
    near: Pod,
    far: Pod,
    client: Pod,
    service: Service,
}

impl Scene {
    fn start(shape: impl FnOnce(ServiceSpec) -> ServiceSpec) -> Result<Self> {
        let mesh = Mesh::start()?;
        mesh.lab.place_node("node-a", "eu", "eu-a")?;
        mesh.lab.place_node("node-b", "eu", "eu-b")?;
        let near = mesh.join(server("near", "node-a").label("app", "echo"))?;
        let far = mesh.join(server("far", "node-b").label("app", "echo"))?;
        let client = mesh.join(client("client", "node-a"))?;
        let spec = ServiceSpec::new(NAMESPACE, "echo").select("app", "echo").port("tcp", 80, port::REPORT_PEER);
        let service = mesh.lab.service(shape(spec))?;
        mesh.settle()?;
        Ok(Self { mesh, near, far, client, service })
    }

    /// Who answers so many connections.
    fn answered(&self, count: usize) -> Result<BTreeMap<String, usize>> {
        let mut seen = BTreeMap::new();
        for _ in 0..count {
            let (_, server) = Connect::to(self.service.at(80)).answered(&self.client)?.seen_by_server()?;
            let name = if server.ip() == self.near.ipv4() { "near" } else { "far" };
            *seen.entry(name.to_owned()).or_default() += 1;
        }
        Ok(seen)
    }

    /// Waits until all connections come to one server: the kernel's tables are a moment behind the configuration.
    fn all(&self, name: &str) -> Result<()> {
        let only = BTreeMap::from([(name.to_owned(), CONNECTIONS)]);
        wait_until(&format!("connections to {name} alone"), PATIENCE, || {
            Ok((self.answered(CONNECTIONS)? == only).then_some(()))
        })
    }

    fn becomes(&self, pod: &Pod, ready: bool) -> Result<()> {
        pod.set_ready(ready)?;
        self.mesh.settle()
    }
}

#[test]
fn connections_stay_in_their_zone_while_somebody_is_ready_there() -> Verdict {
    let scene = Scene::start(|spec| spec.traffic_distribution("PreferSameZone"))?;
    scene.all("near")?;
    let before = scene.mesh.events("node-a", "direct_connect")?;
    assert_eq!(scene.answered(CONNECTIONS)?.len(), 1);
    let by_kernel = scene.mesh.events("node-a", "direct_connect")? - before;
    assert_eq!(by_kernel, CONNECTIONS as u64, "the kernel leads all of them there");
    let why = ctl_json(&scene.mesh, "node-a", &["why", "app/client", "echo.app:80"], 0)?;
    assert_eq!(why["endpoints"], 1, "{why}");
    assert_eq!(why["preferred"]["by"], "trafficDistribution: PreferSameZone", "{why}");
    assert_eq!((&why["preferred"]["others"], &why["source"]["locality"]), (&1.into(), &"eu/eu-a".into()), "{why}");
    scene.becomes(&scene.near, false)?;
    scene.all("far")?;
    scene.becomes(&scene.near, true)?;
    scene.all("near")?;
    // Both in one zone: both serve.
    scene.mesh.lab.place_node("node-b", "eu", "eu-a")?;
    scene.mesh.settle()?;
    let seen = scene.answered(60)?;
    assert!(seen.len() == 2 && seen.values().all(|count| *count >= 12), "{seen:?}");
    Ok(())
}

#[test]
fn a_service_that_is_local_to_nodes_serves_the_own_node_or_nobody() -> Verdict {
    let scene = Scene::start(|spec| spec.internal_traffic_policy("Local"))?;
    scene.all("near")?;
    scene.becomes(&scene.near, false)?;
    let answer = Connect::to(scene.service.at(80)).run(&scene.client)?;
    assert!(answer.was_refused(), "{answer:?}");
    assert_eq!(scene.mesh.refused("node-a", "no_endpoint")?, 1);
    Ok(())
}

#[test]
fn a_client_stays_with_its_server_where_the_service_has_affinity() -> Verdict {
    let scene = Scene::start(|spec| spec.session_affinity("ClientIP"))?;
    let mesh = &scene.mesh;
    let own = scene.answered(CONNECTIONS)?;
    assert_eq!(own.len(), 1, "{own:?}");
    let why = ctl_json(mesh, "node-a", &["why", "app/client", "echo.app:80"], 0)?;
    assert_eq!(why["preferred"]["by"], "sessionAffinity: ClientIP", "{why}");
    // Others may have others.
    let clients: Vec<Pod> =
        (0..12).map(|index| mesh.join(client(&format!("client-{index}"), "node-a"))).collect::<Result<_>>()?;
    mesh.settle()?;
    let mut servers = BTreeSet::new();
    for client in &clients {
        let (_, server) = Connect::to(scene.service.at(80)).answered(client)?.seen_by_server()?;
        servers.insert(server.ip());
    }
    assert_eq!(servers.len(), 2, "of twelve clients each server has some");
    // What stands in for a server that is away is left again.
    let is_near = own.contains_key("near");
    let server = if is_near { &scene.near } else { &scene.far };
    scene.becomes(server, false)?;
    scene.all(if is_near { "far" } else { "near" })?;
    scene.becomes(server, true)?;
    scene.all(if is_near { "near" } else { "far" })?;
    // A waypoint's replicas go by the client's address, too.
    let waypoint = Waypoint::declare_in(mesh, NAMESPACE, "waypoint")?;
    for (name, node) in [("waypoint-1", "node-a"), ("waypoint-2", "node-b")] {
        waypoint.replica(mesh, name, node)?;
    }
    let spec = ServiceSpec::new(NAMESPACE, "waypoint").select("gateway.networking.k8s.io/gateway-name", "waypoint");
    mesh.lab.service(spec.port("mesh", 15_008, 15_008))?;
    waypoint.serve_namespace(mesh)?;
    mesh.settle()?;
    let by_waypoint = scene.answered(CONNECTIONS)?;
    assert_eq!(by_waypoint.len(), 1, "{by_waypoint:?}");
    Ok(())
}

/// With the share of each zone, and with none.
fn rule(setting: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: echo, namespace: app}}\n\
         spec:\n  host: echo\n  trafficPolicy:\n    outlierDetection: {{}}\n    loadBalancer: {{localityLbSetting: {setting}}}\n"
    )
}

#[test]
fn a_destination_rule_decides_at_nodes_as_at_waypoints() -> Verdict {
    let scene = Scene::start(|spec| spec.traffic_distribution("PreferSameNode"))?;
    scene.all("near")?;
    let shares = "{distribute: [{from: 'eu/eu-a/*', to: {'eu/eu-b': 100}}]}";
    for setting in [shares, "{failoverPriority: ['topology.kubernetes.io/zone=eu-b']}"] {
        scene.mesh.lab.apply("rule.yaml", &rule(setting))?;
        scene.mesh.settle()?;
        scene.all("far")?;
    }
    scene.mesh.lab.apply("rule.yaml", &rule("{enabled: false}"))?;
    scene.mesh.settle()?;
    let seen = scene.answered(60)?;
    assert!(seen.len() == 2 && seen.values().all(|count| *count >= 12), "{seen:?}");
    Ok(())
}

#[test]
fn the_waypoints_replica_is_chosen_by_its_own_services_word() -> Verdict {
    let scene = Scene::start(|spec| spec)?;
    let mesh = &scene.mesh;
    let waypoint = Waypoint::declare_in(mesh, NAMESPACE, "waypoint")?;
    for (name, node) in [("waypoint-1", "node-a"), ("waypoint-2", "node-b")] {
        waypoint.replica(mesh, name, node)?;
    }
    let spec = ServiceSpec::new(NAMESPACE, "waypoint").select("gateway.networking.k8s.io/gateway-name", "waypoint");
    mesh.lab.service(spec.port("mesh", 15_008, 15_008).traffic_distribution("PreferClose"))?;
    waypoint.serve_namespace(mesh)?;
    mesh.settle()?;
    for _ in 0..CONNECTIONS {
        Connect::to(scene.service.at(80)).silent().answered(&scene.client)?;
    }
    let pods = wait_until("every connection in the client's log", PATIENCE, || {
        let lines = connections(mesh.daemon("node-a")?);
        let ours = lines.into_iter().filter(|line| line["destination_principal"] == waypoint.identity().as_str());
        let pods: Vec<String> = ours.map(|line| line["destination_pod"].to_string()).collect();
        Ok((pods.len() >= CONNECTIONS).then_some(pods))
    })?;
    assert!(pods.iter().all(|pod| pod.contains("waypoint-1")), "{pods:?}");
    Ok(())
}
