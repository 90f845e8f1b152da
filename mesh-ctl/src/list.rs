//! `mesh-ctl workload|service|policy|certificate|connection list`: what a daemon knows and holds.

use clap::{Args, Subcommand};
use mesh_admin::{Certificate, Connection, List, MAX_LIMIT, Policy, Selection, Service, Workload, path};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Outcome;
use crate::daemon::Daemon;
use crate::flows::name;
use crate::output::{Format, age, note, print, print_value, table};

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
    daemon: Daemon,
    #[command(flatten)]
    part: Part,
}

/// Which part of a list, and in what form.
#[derive(Debug, Args)]
pub(crate) struct Part {
    /// Only those of this namespace; all namespaces without it.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
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
pub(crate) trait Listed: Serialize + DeserializeOwned {
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
}

impl Verb {
    pub(crate) fn run<T: Listed>(&self) -> anyhow::Result<Outcome> {
        let Self::List(arguments) = self;
        arguments.part.show::<T>(&arguments.daemon)
    }
}

impl Part {
    /// Shows what is asked for of a daemon's list.
    pub(crate) fn show<T: Listed>(&self, daemon: &Daemon) -> anyhow::Result<Outcome> {
        let list: List<T> = self.fetch(daemon)?;
        match self.output {
            Format::Table if list.items.is_empty() => note(&format!("no {}", T::PLURAL)),
            Format::Table => {
                let rows: Vec<_> = list.items.iter().flat_map(Listed::rows).collect();
                print(&table(if self.no_headers { &[] } else { T::HEADINGS }, &rows))?;
            }
            format => print_value(&list, format)?,
        }
        if list.items.len() < list.total {
            let (shown, total, what) = (list.items.len(), list.total, T::PLURAL);
            note(&format!("{shown} of {total} {what} shown: --limit 0 shows all, -n NAMESPACE those of one namespace"));
        }
        Ok(Outcome::Good)
    }

    /// The list in as many parts as the daemon gives it, all of one generation if that can be had.
    fn fetch<T: Listed>(&self, daemon: &Daemon) -> anyhow::Result<List<T>> {
        let mut attempt = 1;
        let mut whole = self.part(daemon, 0)?;
        loop {
            let wanted = if self.limit == 0 { whole.total } else { self.limit.min(whole.total) };
            if whole.items.len() >= wanted {
                return Ok(whole);
            }
            let part: List<T> = self.part(daemon, whole.items.len())?;
            if part.generation != whole.generation && attempt < ATTEMPTS {
                attempt += 1;
                whole = self.part(daemon, 0)?;
                continue;
            }
            if part.items.is_empty() {
                return Ok(whole);
            }
            whole.items.extend(part.items);
            whole.total = part.total;
        }
    }

    fn part<T: Listed>(&self, daemon: &Daemon, offset: usize) -> anyhow::Result<List<T>> {
        let limit = if self.limit == 0 { MAX_LIMIT } else { self.limit - offset.min(self.limit) };
        let selection = Selection { namespace: self.namespace.clone(), offset, limit: Some(limit) };
        daemon.get(T::PATH, &selection.to_query())
    }
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

    #[test]
    fn long_lists_of_names_are_cut_and_counted() {
        let names: Vec<_> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        assert_eq!(shortened(&names, 3), "a,b,c and 2 more");
        assert_eq!(shortened(&names[..3], 3), "a,b,c");
        assert_eq!(shortened(&[], 3), "");
    }
}
