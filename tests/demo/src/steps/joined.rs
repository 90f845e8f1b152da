//! The daemons start, the namespace is labelled, and the pods that run join without a restart.

use std::time::Instant;

use anyhow::Result;
use mesh_shop::catalogue::NAMESPACE;

use crate::claim::claim;
use crate::processes::{self, main_of};
use crate::screen::Screen;
use crate::stage::{NODES, Stage, enrolled};
use crate::table::Table;

/// The label that takes a namespace into the mesh.
const LABEL: (&str, &str) = ("mesh.dev/join", "enabled");

pub fn show(stage: &mut Stage, screen: &Screen) -> Result<String> {
    for (index, node) in NODES.iter().enumerate() {
        screen.progress(format!("starting mesh-node on {node}"));
        let started = Instant::now();
        stage.start_daemon(index)?;
        let (took, daemon) = (started.elapsed(), stage.daemon(index)?);
        let memory = daemon.rss()? / 1024;
        screen.say(format!(
            "mesh-node on {node}: pid {}, ready after {} ms, {memory} KiB",
            daemon.id(),
            took.as_millis()
        ));
        let pods = enrolled(daemon)?;
        claim(pods == 0, format!("no pod of {node} in the mesh before the label"), format!("{pods} are"))?;
    }
    let (key, value) = LABEL;
    screen.say(format!("namespace {NAMESPACE} gets the label {key}={value}"));
    let labelled = Instant::now();
    stage.lab.label_namespace(NAMESPACE, key, value)?;
    let joined = stage.wait_enrolled(0)? + stage.wait_enrolled(1)?;
    let took = labelled.elapsed();

    let after = processes::of(&stage.pods)?;
    let mut table = Table::new(["pod", "node", "program", "pid", "started, s after boot", "now"]).numbers(&[3, 4]);
    for pod in &stage.pods {
        let before = main_of(&stage.before, pod.name())?;
        let now = if after.contains(before) { "the same" } else { "gone" };
        let cells = [pod.name(), &pod.node()?, &before.program, &before.pid.to_string(), &before.started(), now];
        table.row(cells.map(str::to_owned));
    }
    screen.table(&table);
    let gone: Vec<_> = stage.before.iter().filter(|process| !after.contains(process)).collect();
    claim(gone.is_empty(), "every process of the pods to run on", format!("gone: {gone:?}"))?;
    let new: Vec<_> = after.iter().filter(|process| !stage.before.contains(process)).collect();
    claim(new.is_empty(), "no new process in the pods", format!("new: {new:?}"))?;
    Ok(format!("{joined} pods joined within {} ms; no process restarted", took.as_millis()))
}
