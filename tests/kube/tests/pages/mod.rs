//! What pages say of a cluster, done in a person's shell.

use anyhow::{Context as _, Result};
use mesh_docs::{Block, Shell};
use mesh_kube_cluster::Cluster;
use mesh_kube_cluster::apps::PATIENCE;
use mesh_lab::wait_until;
use serde_json::Value;

/// Takes the first page's shop away.
pub const END: &str = "kubectl delete namespace shop --ignore-not-found --timeout=120s";

/// A shell in which kubectl, helm and the mesh's own programs are found, for this cluster.
pub fn shell(cluster: &Cluster) -> Result<Shell> {
    let own = mesh_lab::binary("mesh-ctl")?;
    let own = own.parent().context("mesh-ctl is in no folder")?;
    let shell = Shell::new(&[cluster.programs().directory(), own])?;
    Ok(shell.with("KUBECONFIG", cluster.kubectl().kubeconfig()))
}

/// Runs a block, again until it comes to what the page says: what was applied before it takes its time. What it said first, where it
/// did not, is in the test's output.
pub fn come_true(shell: &mut Shell, block: &Block<'_>) -> Result<()> {
    let (mut first, mut last) = (String::new(), String::new());
    wait_until(&format!("{:?} of\n{}", block.info, block.body), PATIENCE, || {
        let outcome = shell.run(block)?;
        if outcome.as_said && is_share(block, &outcome.printed)? {
            if !first.is_empty() {
                eprintln!("not at once: {:?} of\n{}said at first:\n{first}", block.info, block.body);
            }
            return Ok(Some(()));
        }
        last = format!("{}{}", outcome.printed, outcome.said);
        if first.is_empty() {
            first.clone_from(&last);
        }
        Ok(None)
    })
    .with_context(|| format!("at first:\n{first}\nat last:\n{last}"))
}

/// Whether a server had as many answers as a block says.
fn is_share(block: &Block<'_>, printed: &str) -> Result<bool> {
    let Some(share) = block.word("share") else { return Ok(true) };
    let (server, bounds) = share.split_once(':').context("share=SERVER:LEAST-MOST")?;
    let (least, most) = bounds.split_once('-').context("share=SERVER:LEAST-MOST")?;
    let report = printed.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    let answers = report.as_ref().and_then(|report| report["answers"][format!("200 {server}")].as_u64());
    Ok((least.parse::<u64>()?..=most.parse()?).contains(&answers.unwrap_or_default()))
}
