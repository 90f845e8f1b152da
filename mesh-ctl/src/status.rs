//! `mesh-ctl status`: how a node's daemon is, or all of a cluster's.

use clap::Args;
use mesh_admin::{Certificates, ControlState, EnrolmentEvent, Handover, PodsFound, Status, path};
use serde_json::json;

use crate::cluster::ClusterArguments;
use crate::fleet::{self, Said};
use crate::output::{Format, age, print, print_value, table, time_of_day};
use crate::reach::{Asking, Reach};
use crate::{Outcome, generation};

/// Repairs that are shown to people; `-o json` has all events that the daemon keeps.
const MOST_REPAIRS: usize = 5;

/// Says how the node's daemon is, and what wants attention.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    reach: Reach,
    /// Says instead which generation of the configuration mesh-control serves, and at which nodes, waypoints and gateways it is in force.
    #[arg(long)]
    generation: bool,
    /// Where replicas of mesh-control tell their metrics; a name stands for all addresses that it has. By default all replicas of
    /// the kubeconfig's cluster, by its API server, and without one mesh-control-replicas.mesh-system.svc:15014.
    #[arg(long, value_name = "HOST:PORT", env = "MESH_CONTROL", value_delimiter = ',')]
    control: Vec<String>,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

impl StatusArguments {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        if self.generation {
            return generation::run(&self.control, cluster, self.output).await;
        }
        let asking = self.reach.find(cluster).await?;
        let several = matches!(asking, Asking::Several(_));
        let said =
            fleet::ask(asking.targets(), |daemon| async move { daemon.get::<Status>(path::STATUS, &[]).await }).await;
        if several {
            return self.tell_all(&said);
        }
        let status = fleet::only(said)?;
        match self.output {
            Format::Table => print(&for_people(&status))?,
            format => print_value(&status, format)?,
        }
        Ok(if is_well(&status) { Outcome::Good } else { Outcome::Bad })
    }

    /// A line for each node, and all about those that want attention.
    fn tell_all(&self, said: &[Said<Status>]) -> anyhow::Result<Outcome> {
        match self.output {
            Format::Table => print(&nodes_for_people(said))?,
            format => print_value(&json!({"nodes": fleet::entries(said, "node")?}), format)?,
        }
        let well = said.iter().filter_map(|said| said.answer.as_ref().ok()).all(is_well);
        let reached = fleet::tell_unreachable(said)?;
        Ok(if well { reached } else { Outcome::Bad })
    }
}

/// Whether nothing wants attention: warnings and pods that are merely pending do not.
fn is_well(status: &Status) -> bool {
    status.pods.failed == 0
        && status.config.errors == 0
        && status.config.control.as_ref().is_none_or(|control| control.rejected == 0)
        && status.certificates.errors.is_empty()
        && status.data_path.hooks.iter().all(|hook| hook.present)
}

fn nodes_for_people(said: &[Said<Status>]) -> String {
    let rows = said.iter().map(|said| match &said.answer {
        Ok(status) => summary(&said.name, status),
        Err(_) => vec![said.name.clone(), "no answer".to_owned()],
    });
    let headings = ["NODE", "STATE", "MESH-NODE", "UP", "PODS", "CONNECTIONS", "CERTIFICATES", "CONFIG", "ERRORS"];
    let mut text = table(&headings, &rows.collect::<Vec<_>>());
    for status in said.iter().filter_map(|said| said.answer.as_ref().ok()).filter(|status| !is_well(status)) {
        text += &format!("\n{}", for_people(status));
    }
    text
}

fn summary(node: &str, status: &Status) -> Vec<String> {
    let pods = &status.pods;
    vec![
        node.to_owned(),
        if is_well(status) { "well" } else { "wants attention" }.to_owned(),
        status.version.clone(),
        age(status.uptime_seconds),
        format!("{}/{}", pods.enrolled, pods.desired),
        status.connections.to_string(),
        status.certificates.held.to_string(),
        format!("generation {}", status.config.generation),
        status.config.errors.to_string(),
    ]
}

fn for_people(status: &Status) -> String {
    let (config, pods) = (&status.config, &status.pods);
    let absent: Vec<&str> =
        status.data_path.hooks.iter().filter(|hook| !hook.present).map(|hook| hook.name.as_str()).collect();
    let hooks = match absent.len() {
        0 => format!("all {} hooks at {}", status.data_path.hooks.len(), status.data_path.cgroup),
        _ => format!("NOT attached at {}: {}", status.data_path.cgroup, absent.join(", ")),
    };
    let lines = [
        ("node", status.node.clone()),
        ("mesh-node", format!("{}, process {}, up {}", status.version, status.pid, age(status.uptime_seconds))),
        ("handover", handover(&status.handover)),
        ("kernel", status.kernel.clone()),
        ("data path", format!("{hooks}; {} on pods' interfaces", status.data_path.pod_hooks)),
        ("same node", status.data_path.same_node.clone()),
        ("workers", format!("{}, carrying {} connections", status.workers, status.connections)),
        (
            "config",
            format!(
                "generation {}: {} workloads, {} services; {} errors, {} warnings, {} for information",
                config.generation, config.workloads, config.services, config.errors, config.warnings, config.infos
            ),
        ),
        ("told by", config.control.as_ref().map(told_by).unwrap_or_default()),
        (
            "pods",
            format!("{} of {} enrolled, {} pending, {} failed", pods.enrolled, pods.desired, pods.pending, pods.failed),
        ),
        ("pods found", pods.found.as_ref().map(found).unwrap_or_default()),
        ("certificates", certificates(&status.certificates)),
        ("older", older(pods.existing_connections)),
    ];
    let mut text: String = lines
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name:13}{value}\n"))
        .collect();
    if !pods.waiting.is_empty() {
        let rows = pods.waiting.iter().map(|pod| {
            vec![format!("{}/{}", pod.namespace, pod.name), pod.state.clone(), age(pod.for_seconds), pod.reason.clone()]
        });
        text += &format!("\n{}", table(&["POD", "STATE", "SINCE", "WHY"], &rows.collect::<Vec<_>>()));
    }
    if !status.certificates.errors.is_empty() {
        let rows = status.certificates.errors.iter().map(|error| vec![error.identity.clone(), error.error.clone()]);
        text += &format!("\n{}", table(&["IDENTITY", "WITHOUT A NEW CERTIFICATE"], &rows.collect::<Vec<_>>()));
    }
    text += &repairs(&status.events);
    if !config.findings.is_empty() {
        let rows: Vec<_> = config.findings.iter().map(|finding| vec![finding.clone()]).collect();
        text += &format!("\n{}", table(&["FINDINGS"], &rows));
    }
    text
}

/// How pods come to be known as they start.
fn found(found: &PodsFound) -> String {
    match &*found.by {
        "nri" => format!("before their containers run: {} asks (NRI)", found.detail),
        _ => format!("by kubelet's cgroups, a moment after they start; NRI: {}", found.detail),
    }
}

/// The latest of what had vanished.
fn repairs(events: &[EnrolmentEvent]) -> String {
    let repairs: Vec<_> = events.iter().filter(|event| event.event.ends_with("repaired")).collect();
    let latest = &repairs[repairs.len().saturating_sub(MOST_REPAIRS)..];
    if latest.is_empty() {
        return String::new();
    }
    let rows = latest.iter().map(|event| {
        let (pod, detail) = (event.pod.clone(), event.detail.clone().unwrap_or_default());
        vec![
            time_of_day(event.at_milliseconds),
            pod.unwrap_or_else(|| "all pods".to_owned()),
            event.event.clone(),
            detail,
        ]
    });
    format!("\n{}", table(&["TIME (UTC)", "POD", "EVENT", "WHAT"], &rows.collect::<Vec<_>>()))
}

/// Who tells of the configuration, and how far it has.
pub(crate) fn told_by(control: &ControlState) -> String {
    let version = control.version.as_deref().unwrap_or("none");
    let by = match &control.connected {
        Some(address) => format!("mesh-control at {address}"),
        None => "NOBODY: mesh-control is away, the last configuration stays in force".to_owned(),
    };
    let rejected = match control.rejected {
        0 => String::new(),
        count => format!("; {count} objects NOT taken"),
    };
    format!("{by}; its generation {version}{rejected}")
}

/// What is said of connections from before their pods joined: nothing where there are none.
fn older(count: usize) -> String {
    match count {
        0 => String::new(),
        _ => format!("{count} plaintext connections from before their pods joined live on"),
    }
}

fn handover(handover: &Handover) -> String {
    let mut text = match handover.generation {
        0 | 1 => "started without another daemon".to_owned(),
        generation => format!("number {generation} of a chain of daemons"),
    };
    if handover.restarts > 0 {
        text += &format!("; started again after a crash {} times, with the listeners kept", handover.restarts);
    }
    for draining in &handover.draining {
        text += &format!("; process {} drains since {}", draining.pid, age(draining.for_seconds));
    }
    if let Some(successor) = handover.successor {
        text += &format!("; process {successor} prepares to take over");
    }
    text
}

fn certificates(certificates: &Certificates) -> String {
    let held = format!("{} held", certificates.held);
    let Some(soonest) = &certificates.soonest else { return held };
    format!("{held}, the first ends in {}: {}", age(soonest.expires_in_seconds), soonest.identity)
}

#[cfg(test)]
mod tests {
    use mesh_admin::{Config, DataPath, Hook, Pods, WaitingPod};

    use super::*;

    fn status() -> Status {
        Status {
            version: "1.2.3".into(),
            node: "a".into(),
            pid: 7,
            uptime_seconds: 3_700,
            kernel: "6.18.1".into(),
            data_path: DataPath {
                pod_hooks: "tcx".into(),
                cgroup: "/sys/fs/cgroup".into(),
                same_node: "direct".into(),
                hooks: vec![Hook { name: "connect4".into(), present: true }],
            },
            config: Config {
                generation: 3,
                workloads: 2,
                services: 1,
                errors: 0,
                warnings: 1,
                infos: 0,
                findings: vec!["MESH0001 warning x.yaml: something".into()],
                control: None,
            },
            pods: Pods { desired: 1, enrolled: 1, ..Pods::default() },
            certificates: Certificates::default(),
            workers: 2,
            connections: 5,
            handover: Handover::default(),
            events: Vec::new(),
        }
    }

    #[test]
    fn a_daemon_that_wants_attention_says_for_what() {
        let mut ill = status();
        assert!(is_well(&ill));
        ill.data_path.hooks.push(Hook { name: "connect6".into(), present: false });
        ill.pods.failed = 1;
        ill.pods.waiting.push(WaitingPod {
            namespace: "shop".into(),
            name: "cart".into(),
            state: "failed".into(),
            reason: "port 15001 is taken".into(),
            for_seconds: 61,
        });
        assert!(!is_well(&ill));
        let text = for_people(&ill);
        for part in
            ["NOT attached at /sys/fs/cgroup: connect6", "shop/cart  failed  1m1s   port 15001 is taken", "up 1h1m"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
