//! Pods whose node says nothing any more, of which the configuration has not heard: connections go to the others.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Result;
use mesh_e2e::{Connect, Mesh, NAMESPACE, Verdict, Waypoint, client, port, server};
use mesh_lab::{Place as _, Pod, PodSpec, Service, ServiceSpec};

/// Of two endpoints, at least one of so many connections goes to each, but for once in 2^40.
const MANY: usize = 40;

/// Has what is for a pod of node b vanish there.
fn vanish(mesh: &Mesh, pod: &Pod) -> Verdict {
    let node = mesh.lab.node("node-b")?;
    node.exec(&["ip", "route", "add", "blackhole", &format!("{}/32", pod.ipv4())])?.success()?;
    Ok(())
}

/// One of two pods on node b.
fn of_two(name: &str) -> PodSpec {
    server(name, "node-b").label("tier", "back")
}

/// The Service of both.
fn service(mesh: &Mesh) -> Result<Service> {
    mesh.lab.service(ServiceSpec::new("app", "back").select("tier", "back").port("tcp", 80, port::REPORT_PEER))
}

/// Which servers answered many connections; every one was answered.
fn answering(client: &Pod, service: &Service) -> Result<BTreeSet<IpAddr>> {
    (0..MANY).map(|_| Ok(Connect::to(service.at(80)).answered(client)?.seen_by_server()?.1.ip())).collect()
}

#[test]
fn what_is_kept_for_the_next_connection_may_lead_nowhere() -> Verdict {
    let mesh = Mesh::start()?;
    let (one, two) = (mesh.join(of_two("one"))?, mesh.join(of_two("two"))?);
    let (service, client) = (service(&mesh)?, mesh.join(client("client", "node-a"))?);
    mesh.settle()?;
    assert_eq!(answering(&client, &service)?, BTreeSet::from([one.ipv4(), two.ipv4()]));
    vanish(&mesh, &one)?;
    assert_eq!(answering(&client, &service)?, BTreeSet::from([two.ipv4()]));
    Ok(())
}

#[test]
fn outside_of_the_mesh_each_connection_is_dialled() -> Verdict {
    let mesh = Mesh::start()?;
    let out = |name| of_two(name).label("mesh.dev/join", "disabled");
    let (one, two) = (mesh.lab.deploy(out("one"))?, mesh.lab.deploy(out("two"))?);
    let (service, client) = (service(&mesh)?, mesh.join(client("client", "node-a"))?);
    mesh.settle()?;
    vanish(&mesh, &one)?;
    assert_eq!(answering(&client, &service)?, BTreeSet::from([two.ipv4()]));
    Ok(())
}

#[test]
fn a_waypoint_turns_to_another_endpoint() -> Verdict {
    let mesh = Mesh::start()?;
    let (one, two) = (mesh.join(of_two("one"))?, mesh.join(of_two("two"))?);
    let (service, client) = (service(&mesh)?, mesh.join(client("client", "node-a"))?);
    let waypoint = Waypoint::declare_in(&mesh, NAMESPACE, "waypoint")?;
    waypoint.replica(&mesh, "waypoint-1", "node-a")?;
    waypoint.serve_namespace(&mesh)?;
    mesh.settle()?;
    assert_eq!(answering(&client, &service)?, BTreeSet::from([one.ipv4(), two.ipv4()]));
    vanish(&mesh, &one)?;
    assert_eq!(answering(&client, &service)?, BTreeSet::from([two.ipv4()]));
    Ok(())
}

#[test]
fn another_replica_of_a_waypoint_is_asked() -> Verdict {
    let mesh = Mesh::start()?;
    let server = mesh.join(server("server", "node-a").label("tier", "back"))?;
    let (service, client) = (service(&mesh)?, mesh.join(client("client", "node-a"))?);
    let waypoint = Waypoint::declare_in(&mesh, NAMESPACE, "waypoint")?;
    let one = waypoint.replica(&mesh, "waypoint-1", "node-b")?;
    waypoint.replica(&mesh, "waypoint-2", "node-b")?;
    waypoint.serve_namespace(&mesh)?;
    mesh.settle()?;
    assert_eq!(answering(&client, &service)?, BTreeSet::from([server.ipv4()]));
    vanish(&mesh, &one)?;
    assert_eq!(answering(&client, &service)?, BTreeSet::from([server.ipv4()]));
    Ok(())
}
