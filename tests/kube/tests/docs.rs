//! What pages of docs/ say of a cluster, done as they say it: the first page from nothing, each other one where the first page's shop is.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use mesh_docs::{Block, Page};
use mesh_kube_cluster::Cluster;
use mesh_kube_cluster::apps::PATIENCE;
use mesh_kube_cluster::mesh::{Mesh, install_gateway_api};
use mesh_lab::wait_until;
use serde_json::Value;

const FIRST: &str = "docs/first-namespace.md";
/// Where the other pages begin.
const SHOP: [&str; 3] = [
    "kubectl apply -f docs/examples/shop.yaml",
    "kubectl label namespace shop mesh.dev/join=enabled",
    "kubectl -n shop wait --for=condition=Available deployment --all --timeout=120s",
];
/// Where they end.
const END: &str = "kubectl delete namespace shop --ignore-not-found --timeout=120s";

/// A person's shell, which keeps what was assigned in it.
struct Shell<'a> {
    cluster: &'a Cluster,
    assigned: String,
}

impl Shell<'_> {
    /// Runs a block, again until it comes to what the page says: what was applied before it takes its time.
    fn run(&mut self, block: &Block<'_>) -> Result<()> {
        let script = format!("set -eo pipefail\n{}{}", self.assigned, block.body);
        wait_until(&format!("{:?} of\n{}", block.info, block.body), PATIENCE, || {
            let output = self.command(&script)?.output().context("starting bash")?;
            let printed = String::from_utf8_lossy(&output.stdout);
            let done = output.status.code() == Some(block.exit_code()) && is_share(block, &printed)?;
            if !done {
                eprintln!("{printed}{}", String::from_utf8_lossy(&output.stderr));
            }
            Ok(done.then_some(()))
        })?;
        let is_assignment = |line: &&str| {
            let name = line.split('=').next().unwrap_or_default();
            line.contains('=') && !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase())
        };
        for line in block.body.lines().filter(is_assignment) {
            self.assigned.extend([line, "\n"]);
        }
        Ok(())
    }

    fn ends_well(&self, command: &str) -> Result<()> {
        let output = self.command(command)?.output().context("starting bash")?;
        ensure!(output.status.success(), "`{command}`: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// What a page says of a cluster, in its order.
    fn page(&mut self, page: &Page) -> Result<()> {
        for block in page.blocks() {
            if block.is("yaml") && !block.has("values") {
                self.cluster.kubectl().apply(&block.body)?;
            } else if block.has("test=cluster") {
                self.run(&block)?;
            }
        }
        Ok(())
    }

    fn command(&self, script: &str) -> Result<Command> {
        let programs = [self.cluster.programs().directory().to_owned(), mesh_lab::binary("mesh-ctl")?];
        let [programs, own] = [&*programs[0], programs[1].parent().context("mesh-ctl is in no folder")?];
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [programs, own].map(Path::to_path_buf).into_iter().chain(std::env::split_paths(&path));
        let mut command = Command::new("bash");
        command.args(["-c", script]).current_dir(mesh_docs::root()).env("PATH", std::env::join_paths(path)?);
        command.env("KUBECONFIG", self.cluster.kubectl().kubeconfig()).env_remove("MESH_ADMIN_SOCKET");
        Ok(command)
    }
}

#[test]
fn every_page_is_as_it_says() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    install_gateway_api(&cluster)?;
    let mesh = Mesh::installed(&cluster, &[])?;
    let shell = || Shell { cluster: &cluster, assigned: String::new() };
    shell().page(&Page::read(Path::new(FIRST))).with_context(|| mesh.logs())?;
    let is_of_a_cluster = |page: &Page| page.blocks().iter().any(|block| block.has("test=cluster"));
    for page in Page::all().iter().filter(|page| page.path != Path::new(FIRST) && is_of_a_cluster(page)) {
        let mut shell = shell();
        let mut done = || -> Result<()> {
            SHOP.iter().try_for_each(|command| shell.ends_well(command))?;
            shell.page(page)?;
            shell.ends_well(END)
        };
        done().with_context(|| page.path.display().to_string()).with_context(|| mesh.logs())?;
    }
    Ok(())
}

/// Whether a server had as many answers as a block says: `share=SERVER:LEAST-MOST`.
fn is_share(block: &Block<'_>, printed: &str) -> Result<bool> {
    let Some(share) = block.info.iter().find_map(|word| word.strip_prefix("share=")) else { return Ok(true) };
    let (server, bounds) = share.split_once(':').context("share=SERVER:LEAST-MOST")?;
    let (least, most) = bounds.split_once('-').context("share=SERVER:LEAST-MOST")?;
    let report = printed.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    let answers = report.as_ref().and_then(|report| report["answers"][format!("200 {server}")].as_u64());
    Ok((least.parse::<u64>()?..=most.parse()?).contains(&answers.unwrap_or_default()))
}
