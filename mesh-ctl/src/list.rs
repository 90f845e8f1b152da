//! `mesh-ctl workload|service|policy|certificate|connection list`: what a daemon knows and holds, or all of a cluster's.

use std::collections::HashMap;

use clap::{Args, Subcommand};
use mesh_admin::{Certificate, Connection, List, MAX_LIMIT, Policy, Selection, Service, Workload, path};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::Outcome;
use crate::cluster::ClusterArguments;
use crate::daemon::Daemon;
use crate::fleet::{self, Said};
use crate::flows::name;
use crate::output::{Format, age, note, print, print_value, table};
use crate::reach::{Asking, Reach};

/// What is shown of a list unless it is asked for more.
const DEFAULT_LIMIT: usize = 500;
/// How often a list is begun anew because the configuration changed meanwhile.
const ATTEMPTS: usize = 3;

/// What can be done with a kind of thing.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists them.
    #[command(visible_alias = "ls")]
    List(ListArguments),
}

/// Which part of a daemon's list, and in what form.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    part: Part,
}

/// Which part of a list, and in what form.
#[derive(Debug, Clone, Args)]
pub(crate) struct Part {
    /// Only those of this namespace; all namespaces without it.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// How many to show at most; 0 for all.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Leaves the line of headings out.
    #[arg(long)]
    no_headers: bool,
}

/// Something that a daemon lists.
pub(crate) trait Listed: Serialize + DeserializeOwned + Send + 'static {
    /// Where in the API.
    const PATH: &'static str;
    /// Several of them.
    const PLURAL: &'static str;
    /// Of the columns.
    const HEADINGS: &'static [&'static str];
    /// The columns.
    fn row(&self) -> Vec<String>;
    /// All lines of it, where it may have several.
    fn rows(&self) -> Vec<Vec<String>> {
        vec![self.row()]
    }
    /// The node whose daemon alone knows all of it, and which has a column of its own.
    fn node(&self) -> Option<&str> {
        None
    }
}

impl Verb {
    pub(crate) async fn run<T: Listed>(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let Self::List(arguments) = self;
        let asking = arguments.reach.find(cluster).await?;
        arguments.part.show::<T>(asking, "NODE").await
    }
}

impl Part {
    /// Shows what is asked for of the list of one, or of all that are asked, with a column for which.
    pub(crate) async fn show<T: Listed>(&self, asking: Asking, heading: &'static str) -> anyhow::Result<Outcome> {
        let several = matches!(asking, Asking::Several(_));
        let said = fleet::ask(asking.targets(), |daemon| {
            let part = self.clone();
            async move { part.fetch::<T>(&daemon).await }
        })
        .await;
        if several { self.tell_all(&said, heading) } else { self.tell(&fleet::only(said)?) }
    }

    fn tell_all<T: Listed>(&self, said: &[Said<List<T>>], heading: &'static str) -> anyhow::Result<Outcome> {
        match self.output {
            Format::Table => {
                let (headings, rows) = merge(said, heading);
                if rows.is_empty() {
                    note(&format!("no {}", T::PLURAL));
                } else {
                    print(&table(if self.no_headers { &[] } else { &headings }, &rows))?;
                }
            }
            format => {
                let key = heading.to_lowercase();
                print_value(&json!({format!("{key}s"): fleet::entries(said, &key)?}), format)?;
            }
        }
        for said in said {
            if let Ok(list) = &said.answer
                && list.items.len() < list.total
            {
                note(&format!("{}: {}", said.name, cut(list)));
            }
        }
        fleet::tell_unreachable(said)
    }

    fn tell<T: Listed>(&self, list: &List<T>) -> anyhow::Result<Outcome> {
        match self.output {
            Format::Table if list.items.is_empty() => note(&format!("no {}", T::PLURAL)),
            Format::Table => {
                let rows: Vec<_> = list.items.iter().flat_map(Listed::rows).collect();
                print(&table(if self.no_headers { &[] } else { T::HEADINGS }, &rows))?;
            }
            format => print_value(list, format)?,
        }
        if list.items.len() < list.total {
            note(&cut(list));
        }
        Ok(Outcome::Good)
    }

    /// The list in as many parts as the daemon gives it, all of one generation if that can be had.
    async fn fetch<T: Listed>(&self, daemon: &Daemon) -> anyhow::Result<List<T>> {
        let mut attempt = 1;
        let mut whole = self.part(daemon, 0).await?;
        loop {
            let wanted = if self.limit == 0 { whole.total } else { self.limit.min(whole.total) };
            if whole.items.len() >= wanted {
                return Ok(whole);
            }
            let part: List<T> = self.part(daemon, whole.items.len()).await?;
            if part.generation != whole.generation && attempt < ATTEMPTS {
                attempt += 1;
                whole = self.part(daemon, 0).await?;
                continue;
            }
            if part.items.is_empty() {
                return Ok(whole);
            }
            whole.items.extend(part.items);
            whole.total = part.total;
        }
    }

    async fn part<T: Listed>(&self, daemon: &Daemon, offset: usize) -> anyhow::Result<List<T>> {
        let limit = if self.limit == 0 { MAX_LIMIT } else { self.limit - offset.min(self.limit) };
        let selection = Selection { namespace: self.namespace.clone(), offset, limit: Some(limit) };
        daemon.get(T::PATH, &selection.to_query()).await
    }
}

fn cut<T: Listed>(list: &List<T>) -> String {
    let (shown, total, what) = (list.items.len(), list.total, T::PLURAL);
    format!("{shown} of {total} {what} shown: --limit 0 shows all, -n NAMESPACE those of one namespace")
}

/// The lists of several as one: what several say alike is told once, with who says it.
///
/// So what every node should know in the same way shows where one does not. What one node alone knows whole is taken from it, where
/// it answers.
fn merge<T: Listed>(said: &[Said<List<T>>], heading: &'static str) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let answered: Vec<_> =
        said.iter().filter_map(|said| Some((said.name.as_str(), said.answer.as_ref().ok()?))).collect();
    let has_own_column = T::HEADINGS.contains(&heading);
    let mut order: Vec<Vec<Vec<String>>> = Vec::new();
    let mut tellers: HashMap<Vec<Vec<String>>, Vec<&str>> = HashMap::new();
    for (name, list) in &answered {
        let known_better =
            |item: &&T| item.node().is_none_or(|own| own == *name || answered.iter().all(|(other, _)| *other != own));
        for item in list.items.iter().filter(known_better) {
            let rows = item.rows();
            if !tellers.contains_key(&rows) {
                order.push(rows.clone());
            }
            tellers.entry(rows).or_default().push(name);
        }
    }
    if has_own_column {
        order.sort();
        return (T::HEADINGS.to_vec(), order.concat());
    }
    let mut all = Vec::new();
    for rows in order {
        let names = tellers.remove(&rows).unwrap_or_default();
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let mut by =
            if names.len() == answered.len() && names.len() > 1 { "all".to_owned() } else { shortened(&names, 3) };
        for row in rows {
            all.push([vec![std::mem::take(&mut by)], row].concat());
        }
    }
    ([&[heading], T::HEADINGS].concat(), all)
}

impl Listed for Workload {
    const PATH: &'static str = path::WORKLOADS;
    const PLURAL: &'static str = "workloads";
    const HEADINGS: &'static [&'static str] =
        &["NAMESPACE", "NAME", "NODE", "ADDRESS", "READY", "MESH", "IDENTITY", "WHY"];

    fn row(&self) -> Vec<String> {
        let mesh = match (&self.state, self.enrolled) {
            (Some(state), _) => state,
            (None, true) => "yes",
            (None, false) => "no",
        };
        let older =
            self.existing_connections.map(|count| format!("{count} plaintext connections from before it joined"));
        let why = self.reason.clone().or_else(|| self.outside.clone()).or(older);
        vec![
            self.namespace.clone(),
            self.name.clone(),
            self.node.clone(),
            self.addresses.first().map_or_else(|| "-".to_owned(), ToString::to_string),
            yes_no(self.ready),
            mesh.to_owned(),
            self.identity.clone(),
            why.unwrap_or_default(),
        ]
    }

    fn node(&self) -> Option<&str> {
        Some(&self.node)
    }
}

impl Listed for Service {
    const PATH: &'static str = path::SERVICES;
    const PLURAL: &'static str = "services";
    const HEADINGS: &'static [&'static str] = &["NAMESPACE", "NAME", "ADDRESS", "PORTS", "READY", "ENDPOINTS"];

    fn row(&self) -> Vec<String> {
        let ports = self.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol));
        let ready = self.ports.iter().map(|port| port.ready).max().unwrap_or(0);
        let mut endpoints: Vec<String> = Vec::new();
        for endpoint in self.ports.iter().flat_map(|port| &port.endpoints) {
            let name = endpoint.workload.clone().unwrap_or_else(|| endpoint.address.ip().to_string());
            if !endpoints.contains(&name) {
                endpoints.push(name);
            }
        }
        vec![
            self.namespace.clone(),
            self.name.clone(),
            self.addresses.first().map_or_else(|| "headless".to_owned(), ToString::to_string),
            ports.collect::<Vec<_>>().join(","),
            ready.to_string(),
            shortened(&endpoints, 3),
        ]
    }
}

impl Listed for Policy {
    const PATH: &'static str = path::POLICIES;
    const PLURAL: &'static str = "policies";
    const HEADINGS: &'static [&'static str] = &["NAMESPACE", "KIND", "NAME", "SCOPE", "ACTION", "RULES", "SELECTS"];

    fn row(&self) -> Vec<String> {
        let dry_run = if self.dry_run { " (dry run)" } else { "" };
        vec![
            self.namespace.clone(),
            self.kind.clone(),
            self.name.clone(),
            self.scope.clone(),
            format!("{}{dry_run}", self.action),
            self.rules.to_string(),
            self.selects.clone().unwrap_or_else(|| "all".to_owned()),
        ]
    }
}

impl Listed for Certificate {
    const PATH: &'static str = path::CERTIFICATES;
    const PLURAL: &'static str = "certificates";
    const HEADINGS: &'static [&'static str] = &["IDENTITY", "EXPIRES IN", "ERROR"];

    fn row(&self) -> Vec<String> {
        let left = self.expires_in_seconds.map_or_else(|| "no certificate".to_owned(), age);
        vec![self.identity.clone(), left, self.error.clone().unwrap_or_default()]
    }
}

impl Listed for Connection {
    const PATH: &'static str = path::CONNECTIONS;
    const PLURAL: &'static str = "connections";
    const HEADINGS: &'static [&'static str] =
        &["ID", "END", "SOURCE", "DESTINATION", "SERVICE", "SECURITY", "STATE", "AGE", "SENT", "RECEIVED"];

    fn row(&self) -> Vec<String> {
        let talk = &self.talk;
        vec![
            self.id.to_string(),
            talk.reporter.clone(),
            name(&talk.source),
            name(&talk.destination),
            talk.service.clone().unwrap_or_else(|| "-".to_owned()),
            talk.security.clone(),
            if self.open { "open" } else { "opening" }.to_owned(),
            age(self.age_seconds),
            talk.bytes_from_client.to_string(),
            talk.bytes_to_client.to_string(),
        ]
    }
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// The first `most` of some names, and how many more there are.
fn shortened(names: &[String], most: usize) -> String {
    let shown = names[..names.len().min(most)].join(",");
    match names.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(policies: &[(&str, &str)]) -> List<Policy> {
        let items = policies.iter().map(|(name, action)| Policy {
            kind: "PeerAuthentication".into(),
            namespace: "shop".into(),
            name: (*name).to_owned(),
            scope: "namespace".into(),
            selects: None,
            action: (*action).to_owned(),
            dry_run: false,
            rules: 0,
        });
        List { items: items.collect(), total: policies.len(), generation: 1 }
    }

    #[test]
    fn what_several_say_alike_is_one_row_and_who_differs_is_seen() {
        let said = |name: &str, answer| Said { name: name.to_owned(), answer };
        let lists = [
            said("node-a", Ok(list(&[("same", "STRICT"), ("late", "STRICT")]))),
            said("node-b", Ok(list(&[("same", "STRICT"), ("late", "PERMISSIVE")]))),
            said("node-c", Err(anyhow::anyhow!("away"))),
        ];
        let (headings, rows) = merge(&lists, "NODE");
        assert_eq!(headings[..4], ["NODE", "NAMESPACE", "KIND", "NAME"]);
        let seen: Vec<_> = rows.iter().map(|row| [0, 3, 5].map(|cell| row[cell].as_str())).collect();
        assert_eq!(seen, [["all", "same", "STRICT"], ["node-a", "late", "STRICT"], ["node-b", "late", "PERMISSIVE"]]);
    }

    #[test]
    fn long_lists_of_names_are_cut_and_counted() {
        let names: Vec<_> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        assert_eq!(shortened(&names, 3), "a,b,c and 2 more");
        assert_eq!(shortened(&names[..3], 3), "a,b,c");
        assert_eq!(shortened(&[], 3), "");
    }
}
