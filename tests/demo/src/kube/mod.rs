//! A real Kubernetes of two nodes: the mesh by Helm, the shop by kubectl, and the same evidence as in the lab.

mod before;
mod canary;
mod gone;
mod identities;
mod joined;
mod refused;
mod shopper;
mod wire_again;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::mesh::Mesh;
use mesh_kube_cluster::{Cluster, Home, Kubectl};
use mesh_lab::Daemon;
use mesh_shop::catalogue::NAMESPACE;
use serde_json::Value;

use crate::checkout::Purchase;
use crate::scene::{Scene, Step};
use crate::screen::Screen;

/// The demonstration's cluster: a person's own is 0, that of the tests 9.
const NUMBER: u8 = 7;
/// What starts a cluster, and enters its nodes.
const CLUSTER: &str = "mesh-kube-cluster";
/// Names the folder of the images' archives.
const IMAGES: &str = "MESH_DEMO_IMAGES";

/// The cluster, and what was seen in it so far.
pub struct Kube {
    cluster: Cluster,
    kubectl: Kubectl,
    mesh: Mesh,
    purchase: Purchase,
    /// The shop's containers when no mesh was there yet.
    before: Vec<joined::Container>,
    /// How often each of the purchase's secrets was read off the wire before the mesh.
    readable: Vec<usize>,
}

impl Kube {
    /// The shop's pods, and the shopper's.
    fn pods(&self) -> Result<Vec<Value>> {
        let list = self.kubectl.get(&["-n", NAMESPACE, "pods"])?;
        let is_well = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_null();
        Ok(list["items"].as_array().into_iter().flatten().filter(|pod| is_well(pod)).cloned().collect())
    }

    /// Whose an address is: a pod's workload, or the address itself.
    fn name_of(&self, pods: &[Value], address: IpAddr) -> String {
        let text = address.to_string();
        let has =
            |pod: &&Value| pod["status"]["podIPs"].as_array().is_some_and(|all| all.iter().any(|it| it["ip"] == text));
        pods.iter().find(has).map_or_else(|| text.clone(), workload)
    }

    /// kubectl, as it is shown and run.
    fn show(&self, screen: &Screen, arguments: &[&str]) -> Result<String> {
        screen.command("you", &format!("kubectl {}", arguments.join(" ")));
        self.kubectl.run(arguments)
    }

    /// Applies what is shown.
    fn apply(&self, screen: &Screen, manifest: &str) -> Result<()> {
        screen.command("you", "kubectl apply -f - <<EOF");
        manifest.trim_end().lines().for_each(|line| screen.quote(line));
        self.kubectl.apply(manifest).map(drop)
    }
}

/// A pod's Deployment, or its own name.
fn workload(pod: &Value) -> String {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    match pod["metadata"]["labels"]["pod-template-hash"].as_str() {
        Some(hash) => name.split(&format!("-{hash}")).next().unwrap_or(name).to_owned(),
        None => name.to_owned(),
    }
}

impl Scene for Kube {
    const TITLE: &'static str = "A mesh without sidecars on Kubernetes: one chart, one label, a waypoint, a canary";
    const STEPS: &'static [Step<Self>] = &[
        Step { title: "Before the mesh: a shop by kubectl, and a listener between the nodes", show: before::show },
        Step { title: "The mesh by Helm, the namespace by a label: pods join as they run", show: joined::show },
        Step { title: "On the wire again: the same checkout between the nodes", show: wire_again::show },
        Step { title: "Who talked to whom: identities, by the daemons' metrics", show: identities::show },
        Step { title: "Who may not: STRICT, and a policy that says why", show: refused::show },
        Step { title: "A waypoint and a canary: a tenth for the new version, then all", show: canary::show },
        Step { title: "The mesh goes: the shop stays, and nothing else", show: gone::show },
    ];

    /// Starts the cluster and gives its nodes the images.
    fn build(_keep: bool) -> Result<Self> {
        let home = Home::of(NUMBER);
        ensure!(!home.path().exists(), "it is up already, or was left up: `cargo xtask demo kube --down` removes it");
        run(&["up"])?;
        let folder = std::env::var_os(IMAGES).map(PathBuf::from);
        let folder = folder.with_context(|| format!("{IMAGES} is not set: run this by `cargo xtask demo kube`"))?;
        let archives =
            ["mesh-node", "mesh-control", "mesh-waypoint", "mesh-shop"].map(|name| folder.join(format!("{name}.tar")));
        let archives: Vec<String> = archives.iter().map(|archive| archive.display().to_string()).collect();
        run(&[&["load-image"], &archives.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat())?;
        let cluster = Cluster::of(NUMBER)?;
        let (kubectl, mesh) = (cluster.kubectl(), Mesh::on(&cluster));
        let (purchase, before, readable) = (Purchase::new()?, Vec::new(), Vec::new());
        Ok(Self { cluster, kubectl, mesh, purchase, before, readable })
    }

    fn daemons(&self) -> Vec<&Daemon> {
        Vec::new()
    }

    fn last_words(&self, screen: &Screen) {
        self.mesh
            .logs()
            .lines()
            .filter(|line| !line.contains("\"target\":\"access\""))
            .for_each(|line| screen.quote(line));
    }

    fn say_kept(&self, screen: &Screen) -> Result<()> {
        screen.write("The cluster is left up, and the shop in it. To try:");
        screen.write("");
        screen.say(format!("export KUBECONFIG={}", self.kubectl.kubeconfig().display()));
        screen.say(format!("export PATH={}:$PWD/target/release:$PATH", self.cluster.programs().directory().display()));
        for line in [
            "mesh-ctl install --wait && mesh-ctl join shop",
            "mesh-ctl waypoint apply -n shop --enrol-namespace --wait",
            "kubectl -n shop exec shopper -- mesh-shop checkout --frontend http://frontend.shop:8080 --count 5",
            "mesh-ctl top",
            "mesh-ctl why shop/shopper payment.shop:9090",
            "cargo xtask demo kube --down",
        ] {
            screen.say(line);
        }
        Ok(())
    }

    fn take_down(self) -> Result<()> {
        remove().map(drop)
    }
}

/// Removes the demonstration's cluster. Whether there was one.
pub fn remove() -> Result<bool> {
    let home = Home::of(NUMBER);
    let was = home.path().exists();
    Cluster::down(NUMBER)?;
    ensure!(!home.path().exists(), "{} is still there", home.path().display());
    Ok(was)
}

/// Runs the program that starts clusters; what it says is shown where it fails.
fn run(arguments: &[&str]) -> Result<()> {
    let program = mesh_lab::binary(CLUSTER)?;
    let number = NUMBER.to_string();
    let mut command = Command::new(program);
    let output =
        command.args(["--number", &number]).args(arguments).output().with_context(|| format!("starting {CLUSTER}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{CLUSTER} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}
