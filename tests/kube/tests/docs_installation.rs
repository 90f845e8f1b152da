//! What pages of docs/ say of installing, changing and removing the mesh, done one page after the other.

mod pages;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use mesh_docs::{Block, INSTALLATION, Page, Shell};
use mesh_kube_cluster::Cluster;
use mesh_kube_cluster::mesh::{Mesh, NAMESPACE};
use pages::{END, come_true, shell};

const RUNNER: &str = "installation";
/// The shop, which no page has joined yet.
const SHOP: &str = "kubectl apply -f docs/examples/shop.yaml
kubectl -n shop wait --for=condition=Available deployment --all --timeout=120s";
/// Everything that the mesh can have left.
const PURGE: &str = "mesh-ctl uninstall --purge";
/// A node that is tainted while the mesh is removed, by helm alone.
const TAINT: &str = "kubectl -n mesh-system scale deployment/mesh-control --replicas=0
kubectl -n mesh-system wait --for=delete pod -l app.kubernetes.io/name=mesh-control --timeout=60s
kubectl taint --overwrite node node-a mesh.dev/agent-not-ready=:NoSchedule
helm uninstall mesh -n mesh-system --wait";

/// Takes everything away when the test ends, however it does.
struct Removed(Shell);

impl Drop for Removed {
    fn drop(&mut self) {
        // The test's own outcome is what counts.
        let _ = self.0.ends_well(PURGE);
        let _ = self.0.ends_well(END);
    }
}

#[test]
fn the_mesh_is_installed_changed_and_removed_as_pages_say() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let removed = Removed(shell(&cluster)?);
    removed.0.ends_well(SHOP)?;
    for path in INSTALLATION {
        let (page, mut shell) = (Page::read(Path::new(path)), here(&cluster)?);
        for block in page.blocks().iter().filter(|block| block.is_run_by(RUNNER)) {
            let done = begin(&cluster, &shell, block).and_then(|()| come_true(&mut shell, block));
            done.with_context(|| path.to_owned()).with_context(|| Mesh::on(&cluster).logs())?;
        }
    }
    // The last page takes it off.
    let nodes = cluster.kubectl().run(&["get", "nodes", "-o", "yaml"])?;
    ensure!(!nodes.contains("mesh.dev/agent-not-ready"), "a node is tainted:\n{nodes}");
    Ok(())
}

/// Where a page has the reader's registry, and directories of the machine's own, is what this machine has.
fn here(cluster: &Cluster) -> Result<Shell> {
    let shell = shell(cluster)?;
    let commands = shell.directory().join("bin").display().to_string();
    let definitions = cluster.programs().directory().join("gateway-api").display().to_string();
    let shell = shell.stand_in("registry.example.com/mesh", "mesh.dev").stand_in("/usr/local/bin", &commands);
    Ok(shell.stand_in("~/.cache/mesh/kube/*/gateway-api", &definitions))
}

/// Brings about what a block begins with.
fn begin(cluster: &Cluster, shell: &Shell, block: &Block<'_>) -> Result<()> {
    match block.word("given") {
        Some("nothing") => {
            shell.ends_well(PURGE)?;
            let gone = ["wait", "--for=delete", "--timeout=60s", &format!("namespace/{NAMESPACE}")];
            cluster.kubectl().run(&gone).map(drop)
        }
        Some("mesh") => shell.ends_well("mesh-ctl install --wait"),
        Some("taint") => shell.ends_well(TAINT),
        _ => Ok(()),
    }
}
