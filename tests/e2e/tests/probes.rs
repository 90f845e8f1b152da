//! Kubelet's probes pass into pods under STRICT, by the kernel's record of who connects; nothing else on the node does.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use mesh_e2e::{Connect, Mesh, PATIENCE, Syn, Verdict, client, ctl, inside, kubelet, port, server};
use mesh_lab::{NodeService, Place, Pod, Process, wait_until};

const NODE: &str = "node-a";
const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: app}
spec: {mtls: {mode: STRICT}}
";

/// A node with something named kubelet in a cgroup of its own, and a pod under STRICT.
struct Parts {
    mesh: Mesh,
    pod: Pod,
    /// Where kubelet runs.
    kubelet: NodeService,
    /// Keeps kubelet's process.
    _process: Process,
}

impl Parts {
    fn start() -> Result<Self> {
        let mut mesh = Mesh::without_daemons()?;
        let (kubelet, process) = kubelet(&mesh.lab, NODE)?;
        mesh.start_daemon(NODE)?;
        mesh.label()?;
        mesh.lab.apply("strict.yaml", STRICT)?;
        let pod = mesh.join(server("server", NODE))?;
        let parts = Self { mesh, pod, kubelet, _process: process };
        parts.wait_for_log("kubelet's probes are known")?;
        Ok(parts)
    }

    fn wait_for_log(&self, line: &str) -> Result<()> {
        let daemon = self.mesh.daemon(NODE)?;
        wait_until(line, PATIENCE, || Ok(daemon.logs().contains(line).then_some(())))
    }

    fn at(&self, port: u16) -> Vec<SocketAddr> {
        self.pod.addresses().into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
    }

    fn events(&self, reason: &str) -> Result<u64> {
        self.mesh.events(NODE, reason)
    }
}

#[test]
fn kubelets_probes_pass_under_strict_and_nothing_else_on_the_node_does() -> Verdict {
    let parts = Parts::start()?;
    let mut probes = 0;
    for to in parts.at(port::REPORT_PEER) {
        let mut kinds = vec![Connect::to(to), Connect::to(to).nonblocking()];
        kinds.extend(to.is_ipv4().then(|| Connect::to(to).mapped()));
        for kind in kinds {
            let answer = kind.answered(&parts.kubelet)?;
            assert_eq!(Some(answer.seen_by_server()?.0), answer.local, "{kind:?}: the node's own address");
            probes += 1;
        }
    }
    assert_eq!((parts.events("kubelet_probe")?, parts.events("inbound_plaintext")?), (probes, 0));
    // A port where nothing listens refuses as it would without a mesh: the probe fails, as it should.
    let closed = Connect::to(parts.at(port::CLOSED)[0]).run(&parts.kubelet)?;
    assert_eq!(closed.connect, "refused", "{closed:?}");

    let node = parts.mesh.lab.node(NODE)?;
    let host = parts.mesh.lab.deploy(client("host", NODE).host_network())?;
    for to in parts.at(port::ECHO) {
        // Of the same address, by a service of the node and by a pod on its network.
        let _ = Connect::to(to).for_seconds(5).run(&node)?;
        let _ = Connect::to(to).for_seconds(5).run(&host)?;
    }
    assert_eq!(parts.events("kubelet_probe")?, probes + 1, "the one to the closed port");
    assert!(parts.events("inbound_plaintext")? >= 4, "all others went to the daemon");
    Ok(())
}

#[test]
fn a_packet_from_a_probes_address_is_no_probe() -> Verdict {
    let parts = Parts::start()?;
    let apart = parts.mesh.lab.deploy(client("apart", NODE).label("mesh.dev/join", "disabled"))?;
    let to = parts.at(port::REPORT_PEER)[0];
    let answer = Connect::to(to).answered(&parts.kubelet)?;
    let from = answer.local.context("no address")?;
    let admitted = parts.events("kubelet_probe")?;
    inside(&apart, || Syn { source: from, destination: to }.send())?;
    wait_until("the forged SYN to be seen", PATIENCE, || {
        let seen = parts.events("inbound_plaintext")? + parts.events("forged_flow")?;
        Ok((seen > 0).then_some(()))
    })?;
    assert_eq!(parts.events("kubelet_probe")?, admitted);
    Ok(())
}

#[test]
fn kernel_where_kubelet_cannot_be_told_apart_the_node_passes_at_declared_probes_and_nowhere_else() -> Verdict {
    let mesh = Mesh::start()?;
    mesh.lab.apply("strict.yaml", STRICT)?;
    let daemon = mesh.daemon(NODE)?;
    wait_until("the warning", PATIENCE, || Ok(daemon.logs().contains("--kubelet-cgroup").then_some(())))?;
    assert!(daemon.logs().contains("at the ports where they declare probes"), "{}", daemon.logs());
    let pod = mesh.join(server("server", NODE).probe("report-peer"))?;
    let bare = mesh.join(server("bare", NODE))?;
    mesh.settle()?;
    let node = mesh.lab.node(NODE)?;
    let mut probes = 0;
    for ip in pod.addresses() {
        let probe = Connect::to(SocketAddr::new(ip, port::REPORT_PEER));
        let answer = probe.answered(&node)?;
        assert_eq!(Some(answer.seen_by_server()?.0), answer.local, "{probe:?}: the node's own address");
        probes += 1;
        // Another port of the pod, and the same one of a pod that declares none.
        assert!(Connect::to(SocketAddr::new(ip, port::ECHO)).run(&node)?.was_refused());
    }
    assert!(Connect::to(SocketAddr::new(bare.ipv4(), port::REPORT_PEER)).run(&node)?.was_refused());
    assert_eq!(mesh.events(NODE, "kubelet_probe")?, probes);
    // A SYN that is sent again is steered again.
    assert!(mesh.events(NODE, "inbound_plaintext")? >= 3);

    // Nobody from anywhere else: another node, outside, a pod of this node.
    let to = Connect::to(SocketAddr::new(pod.ipv4(), port::REPORT_PEER));
    let apart = mesh.lab.deploy(client("apart", NODE).label("mesh.dev/join", "disabled"))?;
    assert!(to.run(&apart)?.was_refused());
    assert!(to.run(&mesh.lab.node("node-b")?)?.was_refused());
    assert!(to.run(&mesh.lab.outside("outside")?)?.was_refused());
    assert_eq!(mesh.events(NODE, "kubelet_probe")?, probes);

    // Once kubelet is known, it alone passes.
    let (kubelet, _process) = kubelet(&mesh.lab, NODE)?;
    wait_until("kubelet to be found", PATIENCE, || {
        Ok(daemon.logs().contains("kubelet's probes are known").then_some(()))
    })?;
    to.answered(&kubelet)?;
    assert!(to.run(&node)?.was_refused());
    Ok(())
}

#[test]
fn precheck_says_whether_kubelet_can_be_told_apart() -> Verdict {
    let mesh = Mesh::without_daemons()?;
    let probes = |directory: &[&str]| -> Result<serde_json::Value> {
        let output = ctl(&mesh, NODE, &[&["precheck", "-o", "json"], directory].concat())?;
        let found = output.json()?["requirements"].as_array().into_iter().flatten().cloned().collect::<Vec<_>>();
        found.into_iter().find(|it| it["name"] == "kubelet's probes").context("nothing on probes")
    };
    let unknown = probes(&[])?;
    assert_eq!(unknown["state"], "warning", "{unknown}");
    assert!(unknown["detail"].as_str().is_some_and(|detail| detail.contains("declare probes")), "{unknown}");
    assert_eq!(probes(&["--kubelet-cgroup", "."])?["state"], "ok");
    Ok(())
}
