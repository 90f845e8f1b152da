//! Who may talk to whom across two nodes: PeerAuthentication, AuthorizationPolicy and DestinationRule on real traffic.

use std::net::SocketAddr;

use anyhow::Result;
use mesh_e2e::{Connect, Held, Mesh, PATIENCE, Verdict, port};
use mesh_lab::{Outside, Place, Pod, ServiceSpec, wait_until};
use serde_json::Value;

/// A server on one node; on the other a client and somebody else, both enrolled; and a machine outside.
struct Scene {
    mesh: Mesh,
    server: Pod,
    client: Pod,
    other: Pod,
    outside: Outside,
}

impl Scene {
    fn start() -> Result<Self> {
        let mesh = Mesh::start()?;
        let [client, server] = mesh.client_and_server()?;
        let other = mesh.join(mesh_e2e::client("other", "node-a"))?;
        let outside = mesh.lab.outside("outside")?;
        mesh.settle()?;
        Ok(Self { mesh, server, client, other, outside })
    }

    /// Puts a manifest in force on both nodes.
    fn apply(&self, text: &str) -> Result<()> {
        self.mesh.lab.apply("policy.yaml", text)?;
        self.mesh.settle()
    }

    /// A port of the server in both families.
    fn at(&self, port: u16) -> [SocketAddr; 2] {
        [self.server.ipv4(), self.server.ipv6()].map(|ip| SocketAddr::new(ip, port))
    }

    fn served(&self, place: &impl Place, port: u16) -> Result<()> {
        self.at(port).into_iter().try_for_each(|to| Connect::to(to).answered(place).map(drop))
    }

    fn refused(&self, place: &impl Place, port: u16) -> Result<()> {
        for to in self.at(port) {
            let answer = Connect::to(to).run(place)?;
            anyhow::ensure!(answer.was_refused(), "{to} from {:?}: {answer:?}", place.addresses());
        }
        Ok(())
    }

    /// The server's daemon's count of connections that it refused for this reason.
    fn refusals(&self, reason: &str) -> Result<f64> {
        let labels = [("reporter", "destination"), ("reason", reason)];
        Ok(self.mesh.metrics("node-b")?.sum("mesh_connections_refused_total", &labels))
    }

    /// The lines that the server's daemon logged of connections with this end, once there are `count`.
    fn told_of(&self, end: &str, count: usize) -> Result<Vec<Value>> {
        let daemon = self.mesh.daemon("node-b")?;
        wait_until(&format!("{count} connections to end with {end}"), PATIENCE, || {
            let lines: Vec<_> = mesh_e2e::connections(daemon).into_iter().filter(|line| line["end"] == end).collect();
            Ok((lines.len() >= count).then_some(lines))
        })
    }
}

fn peer_authentication(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{name: default, namespace: app}}\nspec: {spec}\n"
    )
}

fn authorization(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: policy, namespace: app}}\nspec: {spec}\n"
    )
}

fn destination_rule(mode: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: rule, namespace: app}}\nspec: {{host: server, trafficPolicy: {{tls: {{mode: {mode}}}}}}}\n"
    )
}

#[test]
fn strict_lets_nobody_in_without_an_identity() -> Verdict {
    let scene = Scene::start()?;
    scene.served(&scene.outside, port::ECHO)?;
    scene.apply(&peer_authentication("{mtls: {mode: STRICT}}"))?;
    scene.refused(&scene.outside, port::ECHO)?;
    scene.served(&scene.client, port::ECHO)?;
    assert_eq!(scene.refusals("plaintext_under_strict")?, 2.0);
    let told = scene.told_of("plaintext_under_strict", 2)?;
    assert_eq!(told[0]["policy"], "PeerAuthentication app/default", "{}", told[0]);

    scene.apply(&peer_authentication("{mtls: {mode: PERMISSIVE}}"))?;
    scene.served(&scene.outside, port::ECHO)?;
    Ok(())
}

#[test]
fn a_port_may_be_more_or_less_strict_than_its_workload() -> Verdict {
    let scene = Scene::start()?;
    scene.apply(&peer_authentication(&format!(
        "{{selector: {{matchLabels: {{app: server}}}}, mtls: {{mode: STRICT}}, portLevelMtls: {{{}: {{mode: PERMISSIVE}}}}}}",
        port::REPORT_PEER
    )))?;
    scene.refused(&scene.outside, port::ECHO)?;
    scene.served(&scene.outside, port::REPORT_PEER)?;
    Ok(())
}

#[test]
fn an_allow_policy_lets_in_its_principals_and_nobody_else() -> Verdict {
    let scene = Scene::start()?;
    scene.apply(&authorization(
        "{selector: {matchLabels: {app: server}}, rules: [{from: [{source: {principals: [cluster.local/ns/app/sa/client]}}]}]}",
    ))?;
    scene.served(&scene.client, port::ECHO)?;
    scene.refused(&scene.other, port::ECHO)?;
    scene.refused(&scene.outside, port::ECHO)?;
    assert_eq!(scene.refusals("policy_denied")?, 4.0);
    let told = scene.told_of("policy_denied", 4)?;
    assert_eq!(told[0]["policy"], "AuthorizationPolicy app/policy", "{}", told[0]);
    let labels = [("policy", "AuthorizationPolicy app/policy"), ("result", "denied")];
    assert_eq!(scene.mesh.metrics("node-b")?.sum("mesh_policy_decisions_total", &labels), 4.0);
    Ok(())
}

#[test]
fn the_policy_that_allows_is_told_on_one_node_as_on_two() -> Verdict {
    let scene = Scene::start()?;
    let near = scene.mesh.join(mesh_e2e::client("near", "node-b"))?;
    scene.apply(&authorization(
        "{selector: {matchLabels: {app: server}}, rules: [{from: [{source: {namespaces: [app]}}]}]}",
    ))?;
    Connect::to(scene.at(port::ECHO)[0]).answered(&scene.client)?;
    Connect::to(scene.at(port::ECHO)[0]).answered(&near)?;
    let mut told = scene.mesh.told("node-b", 3)?;
    told.retain(|line| line["reporter"] == "destination");
    let security: Vec<_> = told.iter().map(|line| line["security"].as_str().unwrap_or_default()).collect();
    assert_eq!(security, ["mutual_tls", "kernel_attested"]);
    assert!(told.iter().all(|line| line["policy"] == "AuthorizationPolicy app/policy"), "{told:?}");
    Ok(())
}

#[test]
fn a_deny_policy_shuts_a_port_and_comes_before_what_allows() -> Verdict {
    let scene = Scene::start()?;
    let allow = authorization("{rules: [{}]}").replace("name: policy", "name: everybody");
    let deny =
        authorization(&format!("{{action: DENY, rules: [{{to: [{{operation: {{ports: ['{}']}}}}]}}]}}", port::ECHO));
    scene.apply(&format!("{allow}---\n{deny}"))?;
    for place in [&scene.client, &scene.other] {
        scene.refused(place, port::ECHO)?;
        scene.served(place, port::REPORT_PEER)?;
    }
    Ok(())
}

#[test]
fn addresses_are_told_apart_by_their_blocks() -> Verdict {
    let scene = Scene::start()?;
    let (v4, v6) = (scene.client.ipv4(), scene.client.ipv6());
    let blocks = format!("{{ipBlocks: ['{v4}/32', '{v6}/128']}}");
    scene.apply(&authorization(&format!("{{action: DENY, rules: [{{from: [{{source: {blocks}}}]}}]}}")))?;
    scene.refused(&scene.client, port::ECHO)?;
    scene.served(&scene.other, port::ECHO)?;
    scene.served(&scene.outside, port::ECHO)?;
    Ok(())
}

#[test]
fn a_changed_policy_cuts_what_it_denies_and_leaves_the_rest() -> Verdict {
    let scene = Scene::start()?;
    let to = SocketAddr::new(scene.server.ipv4(), port::ECHO);
    let mut denied = Held::open(&scene.client, to)?;
    let mut plaintext = Held::open(&scene.outside, to)?;
    let mut allowed = Held::open(&scene.other, to)?;
    for held in [&mut denied, &mut plaintext, &mut allowed] {
        held.says("before")?;
    }
    scene.apply(&authorization(
        "{action: DENY, rules: [{from: [{source: {notPrincipals: [cluster.local/ns/app/sa/other]}}]}]}",
    ))?;
    assert_eq!(denied.ends()?, "reset");
    assert_eq!(plaintext.ends()?, "reset");
    allowed.says("after")?;
    allowed.close()?;
    for line in scene.told_of("policy_denied", 2)? {
        assert_eq!(line["error"], "AuthorizationPolicy app/policy denies it", "{line}");
    }
    let labels = [("reporter", "destination"), ("reason", "policy_denied")];
    assert_eq!(scene.mesh.metrics("node-b")?.sum("mesh_connections_cut_total", &labels), 2.0);
    Ok(())
}

#[test]
fn a_broken_edit_of_a_policy_leaves_the_last_good_one_in_force() -> Verdict {
    let scene = Scene::start()?;
    let good = authorization("{rules: [{from: [{source: {principals: [cluster.local/ns/app/sa/client]}}]}]}");
    scene.apply(&good)?;
    scene.refused(&scene.other, port::ECHO)?;
    // Ignored, the misspelt field would let everybody in.
    scene.apply(&good.replace("principals", "principles"))?;
    scene.refused(&scene.other, port::ECHO)?;
    scene.served(&scene.client, port::ECHO)?;
    let log = scene.mesh.daemon("node-b")?.logs();
    assert!(log.contains("principles"), "the finding names the field: {log}");
    Ok(())
}

#[test]
fn a_rule_of_the_application_layer_never_opens_what_only_the_node_guards() -> Verdict {
    let scene = Scene::start()?;
    scene.apply(&authorization("{rules: [{to: [{operation: {methods: [GET]}}]}]}"))?;
    scene.refused(&scene.client, port::ECHO)?;
    let log = scene.mesh.daemon("node-b")?.logs();
    assert!(log.contains("methods"), "the finding names the field: {log}");
    Ok(())
}

#[test]
fn a_policy_in_dry_run_is_told_and_changes_nothing() -> Verdict {
    let scene = Scene::start()?;
    let policy = authorization("{action: DENY, rules: [{}]}");
    scene.apply(&policy.replace("namespace: app", "namespace: app, annotations: {istio.io/dry-run: 'true'}"))?;
    scene.served(&scene.client, port::ECHO)?;
    let labels = [("policy", "AuthorizationPolicy app/policy"), ("result", "would_deny")];
    assert_eq!(scene.mesh.metrics("node-b")?.sum("mesh_policy_decisions_total", &labels), 2.0);
    Ok(())
}

#[test]
fn the_clients_side_follows_the_destinations_tls_mode() -> Verdict {
    let scene = Scene::start()?;
    let spec = ServiceSpec::new("app", "server").select("app", "server").port("echo", 80, port::ECHO);
    let service = scene.mesh.lab.service(spec)?;
    scene.apply(&destination_rule("DISABLE"))?;
    Connect::to(service.at(80)).answered(&scene.client)?;
    let told = scene.mesh.told("node-b", 1)?;
    assert_eq!(told[0]["security"], "none", "{}", told[0]);

    scene.apply(&destination_rule("ISTIO_MUTUAL"))?;
    Connect::to(service.at(80)).answered(&scene.client)?;
    let told = scene.mesh.told("node-b", 2)?;
    assert_eq!(told[1]["security"], "mutual_tls", "{}", told[1]);
    // What cannot speak mTLS is not talked to in plaintext instead.
    scene.server.label("mesh.dev/join", "disabled")?;
    scene.mesh.wait_withdrawn(&scene.server, 1)?;
    scene.mesh.settle()?;
    let answer = Connect::to(service.at(80)).run(&scene.client)?;
    assert!(answer.was_refused(), "{answer:?}");
    Ok(())
}
