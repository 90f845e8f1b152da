//! The lab's network without a mesh: what the mesh will be laid over works by itself.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use mesh_lab::{Addresses, Lab, Place, Pod, PodSpec, Service, ServiceSpec};
use serde_json::Value;

fn two_nodes() -> Result<Lab> {
    Lab::builder().node("node-a").node("node-b").build()
}

fn server(lab: &Lab, name: &str, node: &str, kind: &str) -> Result<Pod> {
    lab.deploy(PodSpec::new("shop", name).on(node).label("app", "server").port("tcp", 8080).command([
        "mesh-traffic",
        kind,
        "--listen",
        "[::]:8080",
    ]))
}

fn client(lab: &Lab) -> Result<Pod> {
    lab.deploy(PodSpec::new("shop", "client").on("node-a"))
}

fn service(lab: &Lab) -> Result<Service> {
    lab.service(ServiceSpec::new("shop", "server").select("app", "server").port("tcp", 80, 8080))
}

/// Connects, and returns the report; the outcome may be any.
fn connect(from: &dyn Place, to: SocketAddr) -> Result<Value> {
    from.exec(&["mesh-traffic", "connect", "--timeout", "5", "--to", &to.to_string()])?.json()
}

fn addresses(pod: &Pod) -> Vec<SocketAddr> {
    pod.addresses().into_iter().map(|address| SocketAddr::new(address, 8080)).collect()
}

/// What `report-peer` saw: the client's address without the port, IPv4 as such.
fn seen_peer(report: &Value) -> Result<IpAddr> {
    let text: Value = serde_json::from_str(report["text"].as_str().context("there is no text")?)?;
    let peer: SocketAddr = text["peer"].as_str().context("there is no peer")?.parse()?;
    Ok(peer.ip().to_canonical())
}

#[test]
fn pods_reach_each_other_under_their_own_addresses() -> Result<()> {
    let lab = two_nodes()?;
    let client = client(&lab)?;
    for (name, node) in [("same-node", "node-a"), ("other-node", "node-b")] {
        let server = server(&lab, name, node, "report-peer")?;
        for (to, own) in addresses(&server).into_iter().zip(client.addresses()) {
            let report = connect(&client, to)?;
            assert_eq!(report["outcome"], "ok", "{name}: {report}");
            assert_eq!(seen_peer(&report)?, own, "{name}");
        }
    }
    let itself = server(&lab, "itself", "node-b", "echo")?;
    assert_eq!(connect(&itself, addresses(&itself)[0])?["outcome"], "ok");
    assert_eq!(connect(&itself, "127.0.0.1:8080".parse()?)?["outcome"], "ok");
    assert_eq!(connect(&client, SocketAddr::new(itself.ipv4(), 9))?["outcome"], "refused");
    Ok(())
}

#[test]
fn services_spread_over_ready_pods_and_refuse_without_any() -> Result<()> {
    let lab = two_nodes()?;
    let service = service(&lab)?;
    let client = client(&lab)?;
    for to in [service.at(80), service.at_v6(80)] {
        assert_eq!(connect(&client, to)?["outcome"], "refused", "{to}");
    }
    let one = server(&lab, "one", "node-a", "report-peer")?;
    let two = server(&lab, "two", "node-b", "report-peer")?;
    for (to, own) in [service.at(80), service.at_v6(80)].into_iter().zip(client.addresses()) {
        let report = connect(&client, to)?;
        assert_eq!(report["outcome"], "ok", "{report}");
        assert_eq!(seen_peer(&report)?, own, "{to}");
    }
    one.set_ready(false)?;
    two.delete()?;
    assert_eq!(connect(&client, service.at(80))?["outcome"], "refused");
    one.set_ready(true)?;
    // The only pod behind the Service reaches itself through it.
    for to in [service.at(80), service.at_v6(80)] {
        assert_eq!(connect(&one, to)?["outcome"], "ok", "{to}");
    }
    Ok(())
}

#[test]
fn pods_know_services_by_name() -> Result<()> {
    let lab = Lab::builder().node("node-a").build()?;
    let client = client(&lab)?;
    let service = service(&lab)?;
    let elsewhere = lab.deploy(PodSpec::new("other", "client"))?;
    for name in ["server", "server.shop", "server.shop.svc", &service.hostname()] {
        assert!(
            client.exec(&["getent", "ahostsv4", name])?.success()?.starts_with(&service.vip4().to_string()),
            "{name}"
        );
        assert!(
            client.exec(&["getent", "ahostsv6", name])?.success()?.starts_with(&service.vip6().to_string()),
            "{name}"
        );
    }
    assert_eq!(elsewhere.exec(&["getent", "hosts", "server"])?.code, Some(2), "a short name is of its own namespace");
    elsewhere.exec(&["getent", "hosts", "server.shop"])?.success()?;
    Ok(())
}

#[test]
fn nodes_and_machines_outside_reach_pods_and_services() -> Result<()> {
    let lab = two_nodes()?;
    let service = service(&lab)?;
    let server = server(&lab, "server", "node-b", "report-peer")?;
    let outside = lab.outside("laptop")?;
    for (to, own) in addresses(&server).into_iter().zip(outside.addresses()) {
        let report = connect(&outside, to)?;
        assert_eq!(report["outcome"], "ok", "{report}");
        assert_eq!(seen_peer(&report)?, own);
    }
    for place in [&outside as &dyn Place, &lab.node("node-a")?, &lab.node("node-b")?] {
        for to in [service.at(80), service.at_v6(80)] {
            let report = connect(place, to)?;
            assert_eq!(report["outcome"], "ok", "{report}");
        }
    }
    Ok(())
}

#[test]
fn streams_of_every_shape_arrive_whole() -> Result<()> {
    let lab = two_nodes()?;
    let client = client(&lab)?;
    let server = server(&lab, "server", "node-b", "stream")?;
    let to = addresses(&server)[0].to_string();
    for more in [
        ["send", "--bytes", "20000000", "--both-ways"].as_slice(),
        &["send", "--bytes", "3000", "--chunk", "1", "--both-ways"],
        &["half-close", "--first", "client"],
        &["half-close", "--first", "server"],
        &["reset", "--by", "server"],
        &["reset", "--by", "client"],
    ] {
        let argv = [&["mesh-traffic"], more, &["--to", &to]].concat();
        client.exec(&argv)?.success()?;
    }
    server.wait_for_line("\"outcome\":\"reset\"", Duration::from_secs(5))?;
    assert_eq!(server.log().lines().filter(|line| line.contains("\"outcome\":\"ok\"")).count(), 5, "{}", server.log());
    Ok(())
}

#[test]
fn a_thousand_connections_are_open_at_once() -> Result<()> {
    let lab = two_nodes()?;
    let client = client(&lab)?;
    let server = server(&lab, "server", "node-b", "echo")?;
    let to = addresses(&server)[1].to_string();
    let report = client.exec(&["mesh-traffic", "many", "--connections", "1000", "--to", &to])?;
    report.success()?;
    assert_eq!(report.json()?["outcomes"]["ok"], 1000);
    Ok(())
}

#[test]
fn what_the_probes_say_is_what_happens() -> Result<()> {
    let lab = two_nodes()?;
    let client = client(&lab)?;
    let refusing = server(&lab, "refusing", "node-b", "refuse")?;
    assert_eq!(connect(&client, addresses(&refusing)[0])?["read"], "reset");
    let nowhere = client.exec(&["mesh-traffic", "connect", "--timeout", "0.2", "--to", "10.244.2.200:80"])?;
    assert!(["timeout", "unreachable"].contains(&nowhere.json()?["outcome"].as_str().unwrap()), "{nowhere}");

    let server = server(&lab, "server", "node-b", "report-peer")?;
    let to = addresses(&server)[0].to_string();
    for more in [&["--nonblocking"][..], &["--family", "v4-mapped"], &["--nonblocking", "--family", "v4-mapped"]] {
        let report = client.exec(&[&["mesh-traffic", "connect", "--to", &to], more].concat())?;
        report.success()?;
        let report = report.json()?;
        let peer: SocketAddr = report["peer"].as_str().unwrap().parse()?;
        assert_eq!(peer.is_ipv6(), more.contains(&"v4-mapped"), "{report}");
        assert_eq!(seen_peer(&report)?, client.ipv4());
    }

    let udp = lab.deploy(PodSpec::new("shop", "udp").on("node-b").command([
        "mesh-traffic",
        "udp-echo",
        "--listen",
        "[::]:53",
    ]))?;
    udp.wait_for_line("listening", Duration::from_secs(5))?;
    for address in udp.addresses() {
        let to = SocketAddr::new(address, 53).to_string();
        client.exec(&["mesh-traffic", "udp", "--count", "3", "--to", &to])?.success()?;
    }
    Ok(())
}

#[test]
fn a_held_connection_dies_with_its_server_and_the_pod_comes_back() -> Result<()> {
    let lab = two_nodes()?;
    let client = client(&lab)?;
    let server = server(&lab, "server", "node-b", "echo")?;
    let to = addresses(&server)[0].to_string();
    let mut held = client.spawn(&["mesh-traffic", "hold", "--to", &to])?;
    held.write_line("first")?;
    held.wait_for_line("\"text\":\"first\"", Duration::from_secs(5))?;
    server.kill()?;
    let ended = held.wait(Duration::from_secs(5))?;
    assert!(ended.stdout.contains("\"outcome\":\"eof\"") || ended.stdout.contains("\"outcome\":\"reset\""), "{ended}");

    let (uid, before) = (server.uid()?, server.addresses());
    server.restart(Addresses::Same)?;
    assert_ne!(server.uid()?, uid);
    assert_eq!(server.addresses(), before);
    assert_eq!(connect(&client, addresses(&server)[0])?["outcome"], "ok");
    server.restart(Addresses::New)?;
    assert_ne!(server.addresses(), before);
    assert_eq!(connect(&client, addresses(&server)[1])?["outcome"], "ok");
    Ok(())
}

#[test]
fn captures_show_what_was_said_in_plain_text() -> Result<()> {
    let lab = two_nodes()?;
    let client = client(&lab)?;
    let server = server(&lab, "server", "node-b", "echo")?;
    for (at, to) in addresses(&server).into_iter().enumerate() {
        let (wire, pod, elsewhere) = (lab.capture("node-a")?, lab.capture(&server)?, lab.capture("node-a")?);
        drop(elsewhere.stop()?);
        let message = format!("a needle of family {at}\n");
        client.exec(&["mesh-traffic", "connect", "--message", &message, "--to", &to.to_string()])?.success()?;
        for packets in [wire.stop()?, pod.stop()?] {
            assert_eq!(packets.lost(), 0);
            assert!(packets.contains_plaintext(message.trim()));
            assert!(!packets.contains_plaintext("another needle"));
            assert!(packets.tls_sessions().is_empty());
            assert!(packets.at_port(8080).any(|packet| packet.source.ip() == client.addresses()[at]));
            let stream = packets.streams().iter().find(|stream| stream.destination == to).unwrap();
            assert!(stream.from_start);
            assert_eq!(stream.parts, [message.as_bytes()]);
        }
    }
    Ok(())
}
