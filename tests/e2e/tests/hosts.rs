//! Hosts of ServiceEntries: what pods are told of them when they ask DNS, and where that leads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use mesh_e2e::{Connect, Mesh, NAMESPACE, PATIENCE, Verdict, Waypoint, client, ctl_json, port, server, traffic};
use mesh_lab::{Place, Pod, PodSpec, Readiness, Service, ServiceSpec, wait_until};
use serde_json::Value;

const DNS: u16 = 53;
const AAAA: &str = "28";
const TXT: &str = "16";
const HTTPS: &str = "65";
/// What the resolver says of every name.
const REAL_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const REAL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// A resolver outside the mesh on node b, behind a Service.
struct Resolver {
    pod: Pod,
    service: Service,
}

impl Resolver {
    fn start(mesh: &Mesh) -> Result<Self> {
        Self::with(mesh, REAL_V4.into(), REAL_V6.into())
    }

    /// One that has these addresses for every name.
    fn with(mesh: &Mesh, v4: IpAddr, v6: IpAddr) -> Result<Self> {
        let (v4, v6) = (v4.to_string(), v6.to_string());
        let command = ["mesh-traffic", "dns", "--listen", "[::]:53", "--v4", &v4, "--v6", &v6];
        let spec = PodSpec::new(NAMESPACE, "dns").on("node-b").label("app", "dns").label("mesh.dev/join", "disabled");
        let pod = mesh.lab.deploy(spec.command(command).ready_when(Readiness::Line("listening".to_owned())))?;
        let service =
            mesh.lab.service(ServiceSpec::new(NAMESPACE, "dns").select("app", "dns").udp_port("dns", DNS, DNS))?;
        Ok(Self { pod, service })
    }

    /// Whether it was asked for the name.
    fn was_asked(&self, name: &str) -> bool {
        self.pod.log().lines().any(|line| line.starts_with(&format!("asked {name} ")))
    }
}

fn ask(place: &impl Place, server: SocketAddr, name: &str, more: &[&str]) -> Result<Value> {
    traffic(place, "ask", server, &[&["--name", name][..], more].concat())
}

/// The only address that a name has, by this server.
fn address(place: &impl Place, server: SocketAddr, name: &str, more: &[&str]) -> Result<IpAddr> {
    let answer = ask(place, server, name, more)?;
    let addresses = answer["addresses"].as_array().context("addresses")?;
    anyhow::ensure!(addresses.len() == 1, "{answer}");
    Ok(addresses[0].as_str().context("an address")?.parse()?)
}

/// Waits until a pod is told the mesh's address of a host.
fn wait_told(place: &impl Place, server: SocketAddr, name: &str) -> Result<IpAddr> {
    wait_until(&format!("{name} to be the mesh's"), PATIENCE, || {
        Ok(Some(address(place, server, name, &[])?).filter(|told| mesh_core::hosts::is_automatic(*told)))
    })
}

/// A host with the server's own addresses behind it.
fn static_entry(host: &str, more: &str, server: &Pod) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: \"{host}\", namespace: {NAMESPACE}}}
spec:
  hosts: [{host}]
  resolution: STATIC
  {more}
  ports: [{{number: 80, name: tcp, protocol: TCP, targetPort: {}}}]
  endpoints: [{{address: {}}}, {{address: \"{}\"}}]
",
        port::REPORT_PEER,
        server.ipv4(),
        server.ipv6()
    )
}

/// Asks one resolver for the host `api.example.com` of the mesh, and for others.
fn the_mesh_answers_for_its_host_and_the_resolver_for_others(client: &Pod, server: SocketAddr) -> Result<()> {
    for (name, edns) in [("api.example.com", false), ("aPi.ExAmPlE.cOm", true)] {
        let more: &[&str] = if edns { &["--edns"] } else { &[] };
        let answer = ask(client, server, name, more)?;
        assert_eq!(answer["from"], server.to_string(), "{answer}");
        assert_eq!((&answer["name"], &answer["edns"], &answer["code"]), (&name.into(), &edns.into(), &0.into()));
        if edns {
            let cookie = ask(client, server, name, &["--edns", "--cookie"])?;
            assert_eq!((&cookie["cookie"], &cookie["addresses"]), (&true.into(), &answer["addresses"]));
        }
        let vip = address(client, server, name, more)?;
        assert!(mesh_core::hosts::is_automatic(vip) && vip.is_ipv4(), "{vip}");
        let vip = address(client, server, name, &["--kind", AAAA])?;
        assert!(mesh_core::hosts::is_automatic(vip) && vip.is_ipv6(), "{vip}");
        // It could lead past the mesh.
        assert_eq!(ask(client, server, name, &["--kind", HTTPS])?["addresses"], Value::Array(vec![]));
    }
    for name in ["other.example.com", "example.com", "api.example.com.app.svc.cluster.local"] {
        assert_eq!(address(client, server, name, &[])?, REAL_V4);
        assert_eq!(address(client, server, name, &["--kind", AAAA])?, REAL_V6);
    }
    Ok(())
}

#[test]
fn kernel_answers_questions_for_hosts_of_the_mesh_and_no_others() -> Verdict {
    let mesh = Mesh::start()?;
    let resolver = Resolver::start(&mesh)?;
    let far = mesh.join(server("far", "node-b"))?;
    mesh.lab.apply("host.yaml", &static_entry("api.example.com", "", &far))?;
    let client = mesh.join(client("client", "node-a"))?;
    mesh.settle()?;
    let servers = [
        resolver.service.at(DNS),
        resolver.service.at_v6(DNS),
        SocketAddr::new(resolver.pod.ipv4(), DNS),
        SocketAddr::new(resolver.pod.ipv6(), DNS),
    ];
    // In another spelling: the resolver tells what it was asked.
    wait_told(&client, servers[0], "API.example.com")?;
    let before = mesh.events("node-a", "dns")?;
    for server in servers {
        the_mesh_answers_for_its_host_and_the_resolver_for_others(&client, server)?;
    }
    assert_eq!(mesh.events("node-a", "dns")? - before, 4 * (2 * 4 + 1));
    assert!(!resolver.was_asked("api.example.com") && !resolver.was_asked("aPi.ExAmPlE.cOm"));
    assert!(resolver.was_asked("other.example.com"));
    // What is no question for an address is the resolver's.
    ask(&client, servers[0], "api.example.com", &["--kind", TXT])?;
    assert!(resolver.was_asked("api.example.com"));
    // Where it leads.
    for kind in ["1", AAAA] {
        let vip = address(&client, servers[0], "api.example.com", &["--kind", kind])?;
        let answer = Connect::to(SocketAddr::new(vip, 80)).answered(&client)?;
        assert_eq!(answer.peer, Some(SocketAddr::new(vip, 80)));
        assert!(far.addresses().contains(&answer.seen_by_server()?.1.ip()), "{answer:?}");
        let undeclared = Connect::to(SocketAddr::new(vip, 81)).run(&client)?;
        assert!(undeclared.was_refused(), "{undeclared:?}");
    }
    // Without the mesh's host, its name is the resolver's, and its addresses lead nowhere.
    let vip = address(&client, servers[0], "api.example.com", &[])?;
    mesh.lab.unapply("host.yaml")?;
    mesh.settle()?;
    wait_until("the name to be the resolver's", PATIENCE, || {
        Ok((address(&client, servers[0], "api.example.com", &[])? == REAL_V4).then_some(()))
    })?;
    let gone = Connect::to(SocketAddr::new(vip, 80)).run(&client)?;
    assert!(gone.was_refused(), "{gone:?}");
    Ok(())
}

/// A host that DNS has the addresses of, and speaks HTTP.
const BY_DNS: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: app}
spec:
  hosts: [api.example.com]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
";

#[test]
fn a_host_is_reached_by_its_waypoint_where_programs_know_its_name_alone() -> Verdict {
    let mesh = Mesh::start()?;
    let outside = mesh.lab.outside("outside")?;
    let _server = outside.spawn(&["mesh-traffic", "http", "--listen", "[::]:8080", "--name", "outside"])?;
    let resolver = Resolver::with(&mesh, outside.ipv4(), outside.ipv6())?;
    mesh.lab.apply("host.yaml", BY_DNS)?;
    let client = mesh.join(client("client", "node-a"))?;
    client.set_resolver(resolver.service.at(DNS).ip())?;
    mesh.settle()?;
    let by_name = |more: &[&str]| {
        client.exec(
            &[&["curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{remote_ip} %{http_code}"], more]
                .concat(),
        )
    };
    // Nodes ask no DNS: without a waypoint the name is the resolver's, and the connection goes past the mesh.
    let past = by_name(&["http://api.example.com:8080/"])?;
    past.success()?;
    assert!(
        past.stdout.starts_with(&outside.ipv4().to_string()) || past.stdout.starts_with(&outside.ipv6().to_string())
    );
    let waypoint = Waypoint::declare_in(&mesh, NAMESPACE, "waypoint")?;
    let replica = waypoint.replica(&mesh, "waypoint-1", "node-b")?;
    replica.set_resolver(resolver.service.at(DNS).ip())?;
    waypoint.serve_namespace(&mesh)?;
    mesh.settle()?;
    for family in ["-4", "-6"] {
        let asked = by_name(&[family, "http://api.example.com/status/201"])?;
        asked.success()?;
        let (address, status) = asked.stdout.split_once(' ').context("two words")?;
        assert!(mesh_core::hosts::is_automatic(address.parse().context("an address")?), "{}", asked.stdout);
        assert_eq!(status, "201");
    }
    let addresses = client.exec(&["getent", "ahosts", "api.example.com"])?;
    addresses.success()?;
    let all = addresses.stdout.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
    assert!(all.clone().count() >= 2 && all.clone().all(mesh_core::hosts::is_automatic), "{}", addresses.stdout);
    // What people ask about it by its name.
    let why = ctl_json(&mesh, "node-a", &["why", "app/client", "api.example.com"], 0)?;
    assert_eq!(why["ways"][0]["path"], "waypoint", "{why}");
    let services = ctl_json(&mesh, "node-a", &["service", "list"], 0)?;
    assert!(services.to_string().contains("244."), "{services}");
    Ok(())
}

#[test]
fn whom_a_host_is_not_for_asks_the_resolver() -> Verdict {
    let mesh = Mesh::start()?;
    mesh.lab.namespace("other")?;
    mesh.lab.label_namespace("other", "mesh.dev/join", "enabled")?;
    let resolver = Resolver::start(&mesh)?;
    let far = mesh.join(server("far", "node-b"))?;
    mesh.lab.apply("own.yaml", &static_entry("own.example.com", "exportTo: [\".\"]", &far))?;
    mesh.lab.apply("all.yaml", &static_entry("all.example.com", "", &far))?;
    let within = mesh.join(client("within", "node-a"))?;
    let of_other = mesh.join(PodSpec::new("other", "client").on("node-a"))?;
    let itself = mesh.join(client("itself", "node-a").annotation("ambient.istio.io/dns-capture", "false"))?;
    let asks_for_others = mesh.join(client("forwarder", "node-a").label("app", "forwarder"))?;
    let spec = ServiceSpec::new(NAMESPACE, "forwarder").select("app", "forwarder").udp_port("dns", DNS, DNS);
    mesh.lab.service(spec)?;
    let outside = mesh.lab.deploy(client("outside", "node-a").label("mesh.dev/join", "disabled"))?;
    mesh.settle()?;
    let server = resolver.service.at(DNS);
    let cases = [
        (&within, true, true),
        (&of_other, false, true),
        (&itself, false, false),
        (&asks_for_others, false, false),
        (&outside, false, false),
    ];
    for (pod, own, all) in cases {
        for (name, is_told) in [("own.example.com", own), ("all.example.com", all)] {
            wait_until(&format!("{} to be told of {name}: {is_told}", pod.name()), PATIENCE, || {
                let said = address(pod, server, name, &[])?;
                Ok((mesh_core::hosts::is_automatic(said) == is_told).then_some(()))
            })?;
        }
    }
    for (pod, note) in [(&itself, "dns-capture"), (&asks_for_others, "UDP port 53")] {
        let why = ctl_json(&mesh, "node-a", &["why", &format!("app/{}", pod.name()), "all.example.com"], 0)?;
        assert!(why["node"]["notes"].to_string().contains(note), "{why}");
    }
    Ok(())
}

#[test]
fn hosts_keep_their_addresses_while_there_is_no_daemon() -> Verdict {
    let mut mesh = Mesh::start()?;
    let resolver = Resolver::start(&mesh)?;
    let far = mesh.join(server("far", "node-b"))?;
    mesh.lab.apply("host.yaml", &static_entry("api.example.com", "", &far))?;
    mesh.lab.apply("own.yaml", &static_entry("own.example.com", "exportTo: [\".\"]", &far))?;
    let client = mesh.join(client("client", "node-a"))?;
    let itself = mesh.join(self::client("itself", "node-a").annotation("ambient.istio.io/dns-capture", "false"))?;
    mesh.settle()?;
    let server = resolver.service.at(DNS);
    let vip = wait_told(&client, server, "api.example.com")?;
    let own = wait_told(&client, server, "own.example.com")?;
    mesh.kill9("node-a")?;
    assert_eq!(address(&client, server, "api.example.com", &[])?, vip);
    assert_eq!(address(&client, server, "own.example.com", &[])?, own);
    assert_eq!(address(&itself, server, "api.example.com", &[])?, REAL_V4);
    assert_eq!(address(&client, server, "other.example.com", &[])?, REAL_V4);
    let refused = Connect::to(SocketAddr::new(vip, 80)).run(&client)?;
    assert!(refused.was_refused(), "{refused:?}");
    mesh.start_daemon_with("node-a", &["--no-dns-capture"])?;
    wait_until("the name to be the resolver's", PATIENCE, || {
        Ok((address(&client, server, "api.example.com", &[])? == REAL_V4).then_some(()))
    })?;
    Connect::to(SocketAddr::new(vip, 80)).answered(&client)?;
    Ok(())
}
