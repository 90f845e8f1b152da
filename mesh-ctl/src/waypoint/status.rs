//! `mesh-ctl waypoint status`: how a waypoint or gateway is.

use anyhow::bail;
use clap::Args;
use mesh_admin::{WaypointLimit, WaypointStatus, path};
use serde_json::json;

use super::gateway::{self, Summary};
use crate::Outcome;
use crate::cluster::ClusterArguments;
use crate::fleet::{self, Said, Target};
use crate::output::{Format, age, print, print_value, table};
use crate::reach::WaypointReach;
use crate::status::told_by;

/// Says how it is, and what wants attention.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct StatusArguments {
    /// On a cluster: the Gateway; all of the namespace without it.
    #[arg(value_name = "NAME", conflicts_with = "socket")]
    name: Option<String>,
    /// On a cluster: the namespace of the Gateway; the context's own without it.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    #[command(flatten)]
    reach: WaypointReach,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

impl StatusArguments {
    pub(super) async fn run(&self, arguments: &ClusterArguments) -> anyhow::Result<Outcome> {
        if !self.reach.is_of_a_cluster(arguments, self.name.is_some())? {
            let asking = self.reach.find(arguments, None, None).await?;
            let status = fleet::only(ask(asking.targets()).await)?;
            match self.output {
                Format::Table => print(&for_people(&status))?,
                format => print_value(&status, format)?,
            }
            return Ok(if is_well(&status) { Outcome::Good } else { Outcome::Bad });
        }
        let cluster = arguments.connect().await?;
        let namespace = self.namespace.as_deref().unwrap_or(&cluster.namespace);
        let mut gateways = cluster.proxies_asked_for(Some(namespace)).await?;
        gateways.retain(|gateway| self.name.as_deref().is_none_or(|name| name == gateway.name));
        if gateways.is_empty() {
            let which = self.name.as_ref().map_or_else(|| "Gateways".to_owned(), |name| format!("Gateway {name}"));
            bail!("no {which} in namespace {namespace}: `mesh-ctl waypoint list -A` shows the waypoints there are");
        }
        let pods = cluster.proxies(namespace, self.name.as_deref()).await?;
        self.tell_all(&gateways, &ask(pods).await)
    }

    /// The Gateways, and then all about each pod.
    fn tell_all(&self, gateways: &[Summary], said: &[Said<WaypointStatus>]) -> anyhow::Result<Outcome> {
        let answered = || said.iter().filter_map(|said| said.answer.as_ref().ok());
        match self.output {
            Format::Table => {
                let pods: String = answered().map(|status| format!("\n{}", for_people(status))).collect();
                print(&format!("{}{pods}", gateway::for_people(gateways)))?;
            }
            format => {
                print_value(&json!({"gateways": gateways, "pods": fleet::entries(said, "podName")?}), format)?;
            }
        }
        let reached = if said.is_empty() { Outcome::Bad } else { fleet::tell_unreachable(said)? };
        let well = answered().all(is_well) && gateways.iter().all(|gateway| gateway.programmed == Some(true));
        Ok(if well { reached } else { Outcome::Bad })
    }
}

async fn ask(targets: Vec<Target>) -> Vec<Said<WaypointStatus>> {
    fleet::ask(targets, |daemon| async move { daemon.get(path::WAYPOINT_STATUS, &[]).await }).await
}

/// Whether nothing wants attention. Before its first tunnel a waypoint needs no certificate; one that has ended is none.
fn is_well(status: &WaypointStatus) -> bool {
    !status.draining
        && status.config.errors == 0
        && status.config.control.as_ref().is_none_or(|control| control.rejected == 0)
        && status.certificate_error.is_none()
        && status.certificate_expires_in_seconds != Some(0)
}

fn for_people(status: &WaypointStatus) -> String {
    let config = &status.config;
    let certificate = match (status.certificate_expires_in_seconds, &status.certificate_error) {
        (_, Some(error)) => format!("WITHOUT A NEW ONE: {}", error.error),
        (Some(0), None) => "HAS ENDED".to_owned(),
        (Some(left), None) => format!("ends in {}", age(left)),
        (None, None) => "none yet".to_owned(),
    };
    let active: u64 = status.threads.iter().map(|thread| thread.active).sum();
    let served: u64 = status.threads.iter().map(|thread| thread.served).sum();
    let ports: Vec<String> = status.ports.iter().map(ToString::to_string).collect();
    let each: Vec<String> =
        status.threads.iter().map(|thread| format!("{}+{}", thread.served, thread.active)).collect();
    let lines = [
        ("gateway", status.gateway.clone()),
        ("pod", status.pod.clone().unwrap_or_default()),
        ("mesh-waypoint", format!("{}, process {}, up {}", status.version, status.pid, age(status.uptime_seconds))),
        ("identity", status.identity.clone()),
        ("certificate", certificate),
        (
            "config",
            format!(
                "generation {}: {} workloads, {} services; {} errors, {} warnings, {} for information",
                config.generation, config.workloads, config.services, config.errors, config.warnings, config.infos
            ),
        ),
        ("told by", config.control.as_ref().map(told_by).unwrap_or_default()),
        ("ports", ports.join(", ")),
        ("connections", status.connections.to_string()),
        ("requests", format!("{active} under way, {served} served")),
        ("threads", format!("{}: {}", status.threads.len(), each.join(", "))),
        ("draining", if status.draining { "yes: nothing new is taken" } else { "" }.to_owned()),
    ];
    let told = lines.iter().filter(|(_, value)| !value.is_empty());
    let mut text: String = told.map(|(name, value)| format!("{name:15}{value}\n")).collect();
    if !status.rate_limits.is_empty() {
        let row = |limit: &WaypointLimit| {
            let counts = [limit.passed, limit.limited, limit.not_enforced].map(|count| count.to_string());
            let texts = [&limit.limit, &limit.service, &limit.rate].map(String::clone);
            texts.into_iter().chain(counts).collect()
        };
        let rows: Vec<Vec<String>> = status.rate_limits.iter().map(row).collect();
        text += &format!("\n{}", table(&["LIMIT", "SERVICE", "RATE", "PASSED", "LIMITED", "SPARED"], &rows));
    }
    if !config.findings.is_empty() {
        let rows: Vec<_> = config.findings.iter().map(|finding| vec![finding.clone()]).collect();
        text += &format!("\n{}", table(&["FINDINGS"], &rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use mesh_admin::{CertificateError, Config, WaypointThread};

    use super::*;

    #[test]
    fn a_waypoint_that_wants_attention_says_for_what() {
        let status = WaypointStatus {
            version: "1.2.3".into(),
            gateway: "shop/waypoint".into(),
            pod: None,
            pid: 7,
            uptime_seconds: 61,
            identity: "spiffe://cluster.local/ns/shop/sa/waypoint".into(),
            certificate_expires_in_seconds: Some(3_700),
            certificate_error: None,
            config: Config {
                generation: 3,
                workloads: 2,
                services: 1,
                errors: 0,
                warnings: 1,
                infos: 0,
                findings: vec!["MESH0057 warning x.yaml: something".into()],
                control: None,
            },
            ports: vec![80, 443],
            connections: 4,
            threads: vec![WaypointThread { active: 1, served: 10 }, WaypointThread { active: 2, served: 20 }],
            rate_limits: vec![WaypointLimit {
                limit: "RateLimitPolicy shop/cart limit 0".into(),
                service: "cart.shop.svc.cluster.local".into(),
                rate: "10 per 1s".into(),
                passed: 12,
                limited: 345,
                not_enforced: 0,
                keys: 0,
            }],
            draining: false,
        };
        assert!(is_well(&status));
        let text = for_people(&status);
        for part in
            ["ends in 1h1m", "3 under way, 30 served", "80, 443", "2: 10+1, 20+2", "MESH0057", "10 per 1s", "345"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let error = CertificateError { identity: status.identity.clone(), error: "nobody signs".into() };
        for ill in [
            WaypointStatus { certificate_error: Some(error), ..status.clone() },
            WaypointStatus { certificate_expires_in_seconds: Some(0), ..status.clone() },
            WaypointStatus { draining: true, ..status.clone() },
        ] {
            assert!(!is_well(&ill), "{ill:?}");
        }
    }
}
