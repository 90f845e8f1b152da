//! The ingress gateway: clients from outside reach a Service of the mesh over mTLS, under the gateway's identity.

use std::net::SocketAddr;

use mesh_e2e::{Connect, Mesh, PATIENCE, Verdict, connections, port, server};
use mesh_lab::{Place as _, PodSpec, ServiceSpec, wait_until};

const LISTEN: u16 = 8000;

#[test]
fn a_client_outside_reaches_a_service_through_the_gateway_over_mtls() -> Verdict {
    let mesh = Mesh::start()?;
    mesh.join(server("server", "node-b"))?;
    let spec = ServiceSpec::new("app", "server").select("app", "server").port("tcp", 80, port::ECHO);
    mesh.lab.service(spec)?;
    let (config, ca) = (mesh.lab.config_dir(), mesh.lab.ca_dir()?);
    let (config, ca) = (config.display().to_string(), ca.display().to_string());
    let listen = format!("[::]:{LISTEN}");
    let gateway = ["mesh-waypoint", "gateway", "--listen", &listen, "--to", "server.app:80"];
    let options = ["--identity", "edge/gateway", "--config", &config, "--ca", &ca];
    let command = gateway.into_iter().chain(options);
    let pod = PodSpec::new("edge", "gateway").on("node-a").port("tcp", LISTEN).command(command);
    let pod = mesh.lab.deploy(pod)?;
    let outside = mesh.lab.outside("outside")?;
    for ip in pod.addresses() {
        Connect::to(SocketAddr::new(ip, LISTEN)).answered(&outside)?;
    }
    let daemon = mesh.daemon("node-b")?;
    let line = wait_until("a connection of the gateway's in the server's log", PATIENCE, || {
        let identity = "spiffe://cluster.local/ns/edge/sa/gateway";
        Ok(connections(daemon).into_iter().find(|line| line["source_principal"] == identity))
    })?;
    assert_eq!(line["security"], "mutual_tls", "{line}");
    Ok(())
}
