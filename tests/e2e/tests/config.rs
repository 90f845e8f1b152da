//! Manifests that are wrong while the mesh runs: found once, told with the file and the remedy, and traffic goes on.

use std::net::SocketAddr;

use anyhow::Result;
use mesh_e2e::{Connect, Mesh, NODES, PATIENCE, Verdict, client, echo, lines, port};
use mesh_lab::{Place, wait_until};
use serde_json::Value;

/// A Service of our own making in front of one pod, without the lab's help.
fn manifest(service_port: u16, address: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: handmade, namespace: app}}
spec:
  clusterIP: 10.96.77.77
  clusterIPs: [10.96.77.77]
  ports: [{{name: tcp, port: {service_port}, targetPort: {target}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: handmade-1, namespace: app, labels: {{kubernetes.io/service-name: handmade}}}}
addressType: IPv4
ports: [{{name: tcp, port: {target}}}]
endpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]
",
        target = port::ECHO
    )
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 96, 77, 77], port))
}

/// Lines of warnings about a file, once there is one.
fn findings(mesh: &Mesh, node: &str, file: &str) -> Result<Vec<Value>> {
    let what = format!("a finding about {file} on {node}");
    let about =
        |line: &Value| line["message"].as_str().is_some_and(|text| text.contains(file)) && line["level"] == "WARN";
    wait_until(&what, PATIENCE, || {
        let found: Vec<_> = lines(mesh.daemon(node)?).into_iter().filter(about).collect();
        Ok((!found.is_empty()).then_some(found))
    })
}

/// How often a node's daemon has told of the error in the file.
fn errors(mesh: &Mesh, node: &str) -> Result<usize> {
    let told = findings(mesh, node, "handmade.yaml")?;
    Ok(told.iter().filter(|line| line["message"].as_str().is_some_and(|text| text.contains(" error "))).count())
}

#[test]
fn a_broken_manifest_is_found_once_and_the_last_good_state_stays_until_it_is_mended() -> Verdict {
    let mesh = Mesh::start()?;
    let [client, far] = mesh.client_and_echo()?;
    let address = far.ipv4().to_string();
    mesh.lab.apply("handmade.yaml", &manifest(80, &address))?;
    mesh.settle()?;
    Connect::to(at(80)).answered(&client)?;

    mesh.lab.apply("handmade.yaml", &manifest(81, &address).replacen("metadata: {", "metadata: {{", 1))?;
    for node in NODES {
        assert_eq!(errors(&mesh, node)?, 1, "{node}");
    }
    Connect::to(at(80)).answered(&client)?;
    Connect::to(SocketAddr::new(far.ipv4(), port::ECHO)).answered(&client)?;
    // What else changes is in force, and what was told is not told again.
    let newcomer = mesh.join(echo("newcomer", "node-a"))?;
    mesh.settle()?;
    Connect::to(SocketAddr::new(newcomer.ipv4(), port::ECHO)).answered(&client)?;
    for node in NODES {
        assert_eq!(errors(&mesh, node)?, 1, "{node}");
        assert!(mesh.metrics(node)?.sum("mesh_config_findings", &[]) >= 1.0);
    }

    mesh.lab.apply("handmade.yaml", &manifest(82, &address))?;
    mesh.settle()?;
    Connect::to(at(82)).answered(&client)?;
    assert!(Connect::to(at(80)).run(&client)?.was_refused());
    assert_eq!(mesh.metrics("node-a")?.sum("mesh_config_findings", &[("severity", "error")]), 0.0);
    Ok(())
}

#[test]
fn a_broken_document_does_not_harm_its_neighbours() -> Verdict {
    let mesh = Mesh::start()?;
    let [client, far] = mesh.client_and_echo()?;
    let address = far.ipv4().to_string();
    let broken = "apiVersion: v1\nkind: Service\nmetadata: {name: broken, namespace: app}\nspec: {clusterIP: not-an-address, ports: [{port: 80}]}\n---\n";
    let unknown = "apiVersion: shop.example/v1\nkind: Till\nmetadata: {name: till, namespace: app}\n---\n";
    mesh.lab.apply("mixed.yaml", &(broken.to_owned() + unknown + &manifest(80, &address)))?;
    mesh.settle()?;
    Connect::to(at(80)).answered(&client)?;
    let told = findings(&mesh, "node-a", "mixed.yaml")?;
    let about = |name: &str| {
        told.iter().filter(|line| line["message"].as_str().is_some_and(|text| text.contains(name))).count()
    };
    assert_eq!((about("app/broken"), about("app/till")), (1, 1), "{told:?}");
    mesh.lab.unapply("mixed.yaml")?;
    mesh.settle()?;
    assert_ne!(Connect::to(at(80)).for_seconds(1).run(&client)?.outcome, "ok");
    Ok(())
}

#[test]
fn two_pods_with_one_address_are_told_and_the_first_keeps_it() -> Verdict {
    let mesh = Mesh::start()?;
    let far = mesh.join(echo("b-server", "node-b"))?;
    let client = mesh.join(client("client", "node-a"))?;
    let to = SocketAddr::new(far.ipv4(), port::ECHO);
    let twin = |name: &str| {
        let uid = "00000000-0000-4000-8000-000000000001";
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: app, uid: {uid}}}\nspec: {{nodeName: node-b, \
             serviceAccountName: b-server, containers: [{{name: main, image: none}}]}}\nstatus: {{phase: Running, podIPs: [{{ip: {}}}]}}\n",
            far.ipv4()
        )
    };
    mesh.lab.apply("twin.yaml", &twin("c-twin"))?;
    let told = findings(&mesh, "node-a", "c-twin")?;
    assert!(told[0]["message"].as_str().is_some_and(|text| text.contains(&far.ipv4().to_string())), "{told:?}");
    let answer = Connect::to(to).answered(&client)?;
    assert_eq!(answer.peer, Some(to));
    Ok(())
}
