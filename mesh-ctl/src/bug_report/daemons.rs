//! What daemons, waypoints and gateways say of themselves, and what passes them meanwhile.

use std::time::Duration;

use mesh_admin::{Selection, path};
use serde_json::{Value, json};

use super::Inquiry;
use super::archive::Archive;
use crate::cluster::gateways;
use crate::daemon::{Daemon, Next};
use crate::fleet::{self, Said, Target};

/// Daemons and proxies that are asked: of more, --node picks one.
const MAX_ASKED: usize = 100;
/// Entries of each list.
const MAX_LISTED: usize = 5_000;
/// Flows of each.
const MAX_FLOWS: usize = 5_000;
/// What a daemon is asked for.
const OF_DAEMONS: [(&str, &str); 7] = [
    ("status", path::STATUS),
    ("log-filter", path::LOG),
    ("certificates", path::CERTIFICATES),
    ("workloads", path::WORKLOADS),
    ("services", path::SERVICES),
    ("policies", path::POLICIES),
    ("connections", path::CONNECTIONS),
];
const OF_PROXIES: [(&str, &str); 4] = [
    ("status", path::WAYPOINT_STATUS),
    ("log-filter", path::LOG),
    ("routes", path::WAYPOINT_ROUTES),
    ("clusters", path::WAYPOINT_CLUSTERS),
];
/// Those of them that are no lists.
const WHOLE: [&str; 2] = ["status", "log-filter"];

/// What one of them said: the name of each part, and what it is or why it is not.
type Parts = Vec<(&'static str, Result<Value, String>)>;

impl Inquiry<'_> {
    /// All daemons of the cluster, or the one that is asked for.
    pub(super) async fn daemons(&self, archive: &mut Archive) -> anyhow::Result<()> {
        let found = self.within("daemons", self.cluster.daemons(self.wanted.node.as_deref())).await;
        match found {
            Ok(targets) => self.ask(archive, "nodes", targets, &OF_DAEMONS).await,
            Err(why) => {
                archive.leave_out(why);
                Ok(())
            }
        }
    }

    /// All waypoints and gateways.
    pub(super) async fn proxies(&self, archive: &mut Archive) -> anyhow::Result<()> {
        let everywhere = kube::api::ListParams::default();
        let listed = self.within("Gateways", self.cluster.list(&gateways(), None, &everywhere)).await;
        let list = match listed {
            Ok(list) => list,
            Err(why) => {
                archive.leave_out(why);
                return Ok(());
            }
        };
        let mut namespaces: Vec<String> =
            list.into_iter().flat_map(|list| list.items).filter_map(|gateway| gateway.metadata.namespace).collect();
        namespaces.sort();
        namespaces.dedup();
        for namespace in namespaces {
            match self.within(&format!("proxies of {namespace}"), self.cluster.proxies(&namespace, None)).await {
                Ok(targets) => self.ask(archive, &format!("proxies/{namespace}"), targets, &OF_PROXIES).await?,
                Err(why) => archive.leave_out(why),
            }
        }
        Ok(())
    }

    async fn ask(
        &self,
        archive: &mut Archive,
        folder: &str,
        mut targets: Vec<Target>,
        questions: &'static [(&'static str, &'static str)],
    ) -> anyhow::Result<()> {
        if targets.len() > MAX_ASKED {
            archive.leave_out(format!(
                "{folder}: {} of {} (--node names one)",
                targets.len() - MAX_ASKED,
                targets.len()
            ));
            targets.truncate(MAX_ASKED);
        }
        let (until, flows) = (self.until, Duration::from_secs(self.wanted.flows));
        let said: Vec<Said<(Parts, String)>> = fleet::ask(targets, |daemon| async move {
            let mut parts = Parts::new();
            for (name, path) in questions {
                let asked = tokio::time::timeout_at(until, one(&daemon, name, path)).await;
                let answer = match asked {
                    Ok(answer) => answer.map_err(|error| format!("{name}: {error:#}")),
                    Err(_elapsed) => Err(format!("{name}: the time was over (--timeout)")),
                };
                parts.push((*name, answer));
            }
            let flows = watch(&daemon, flows.min(until - tokio::time::Instant::now().min(until))).await;
            Ok((parts, flows))
        })
        .await;
        for Said { name, answer } in said {
            match answer {
                Err(error) => archive.leave_out(format!("{folder}/{name}: {error:#}")),
                Ok((parts, flows)) => {
                    for (part, answer) in parts {
                        let answer = answer.map_err(|why| format!("{folder}/{name}/{why}"));
                        archive.value(&format!("{folder}/{name}/{part}.json"), answer)?;
                    }
                    archive.text(&format!("{folder}/{name}/flows.jsonl"), Ok(flows))?;
                }
            }
        }
        Ok(())
    }
}

/// One answer, of a list as much as is kept.
async fn one(daemon: &Daemon, name: &str, path: &str) -> anyhow::Result<Value> {
    if WHOLE.contains(&name) {
        return daemon.get(path, &[]).await;
    }
    let (mut items, mut total) = (Vec::new(), 0);
    loop {
        let selection = Selection { namespace: None, offset: items.len(), limit: Some(mesh_admin::MAX_LIMIT) };
        let mut part: Value = daemon.get(path, &selection.to_query()).await?;
        total = part["total"].as_u64().unwrap_or(total);
        let Some(listed) = part["items"].as_array_mut().filter(|listed| !listed.is_empty()) else { break };
        items.append(listed);
        if items.len() >= MAX_LISTED || items.len() as u64 >= total {
            break;
        }
    }
    items.truncate(MAX_LISTED);
    Ok(json!({"total": total, "items": items}))
}

/// What passes, a line of JSON each. That nothing does is an answer, too.
async fn watch(daemon: &Daemon, time: Duration) -> String {
    let (mut lines, mut count) = (String::new(), 0);
    let watching = daemon.lines(
        path::FLOWS,
        &[],
        || Ok(()),
        |line| {
            lines.push_str(line);
            count += 1;
            Ok(if count < MAX_FLOWS { Next::More } else { Next::Stop })
        },
    );
    // The time is how it ends; an error is told by the other answers of the same daemon.
    let _ = tokio::time::timeout(time, watching).await;
    lines
}
