//! What docs/first-namespace.md says, done as it says it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use mesh_docs::{Block, Page};
use mesh_kube_cluster::Cluster;
use mesh_kube_cluster::apps::PATIENCE;
use mesh_kube_cluster::mesh::Mesh;
use mesh_lab::wait_until;
use serde_json::Value;

const PAGE: &str = "docs/first-namespace.md";

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
            let output = self.command(&script).output().context("starting bash")?;
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

    fn command(&self, script: &str) -> Command {
        let programs = self.cluster.programs().directory().display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(["-c", script]).current_dir(mesh_docs::root()).env("PATH", format!("{programs}:{path}"));
        command.env("KUBECONFIG", self.cluster.kubectl().kubeconfig());
        command
    }
}

#[test]
fn the_first_namespace_is_as_its_page_says() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let kubectl = cluster.kubectl();
    let definitions = cluster.programs().directory().join("gateway-api").display().to_string();
    kubectl.run(&["apply", "--server-side", "-f", &definitions])?;
    let mesh = Mesh::installed(&cluster, &[])?;
    let page = Page::read(Path::new(PAGE));
    let mut shell = Shell { cluster: &cluster, assigned: String::new() };
    for block in page.blocks() {
        if block.is("yaml") {
            kubectl.apply(&block.body)?;
        } else if block.has("test=cluster") {
            shell.run(&block).with_context(|| mesh.logs())?;
        }
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
