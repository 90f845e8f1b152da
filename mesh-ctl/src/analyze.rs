//! `mesh-ctl analyze`: the findings about a cluster, a directory of manifests, or the one with the other applied.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use mesh_config::{Config, Finding, Severity, load};
use serde::Serialize;

use crate::Outcome;
use crate::cluster::ClusterArguments;
use crate::manifests::Reading;
use crate::output::{Format, print, print_value, table};

/// Says what is wrong with manifests or a cluster's objects, and what to do.
///
/// Without PATH, it is about the cluster; with PATH, about the manifests; with both PATH and --live, about the cluster as it would
/// be with the manifests applied.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Analyze {
    /// A directory of manifests, or one file.
    path: Option<PathBuf>,
    /// Reads the cluster as well where PATH is given, and puts the manifests in the place of the objects that they name.
    #[arg(long)]
    live: bool,
    /// Only findings about objects of this namespace, and about files.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// From which severity on the exit code is 1.
    #[arg(long, value_enum, default_value = "error")]
    fail_on: FailOn,
    #[command(flatten)]
    reading: Reading,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FailOn {
    Warning,
    Error,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    workloads: usize,
    services: usize,
    findings: Vec<&'a Finding>,
}

impl Analyze {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let config = match &self.path {
            Some(path) if !self.live => load(path, &self.reading.options())?,
            path => self.read(cluster, path.as_deref()).await?,
        };
        let findings = config.findings.iter().filter(|finding| self.is_wanted(finding));
        let report = Report {
            workloads: config.snapshot.workloads().len(),
            services: config.snapshot.services().len(),
            findings: findings.collect(),
        };
        match self.output {
            Format::Table => print(&report.for_people())?,
            format => print_value(&report, format)?,
        }
        let limit = match self.fail_on {
            FailOn::Warning => Severity::Warning,
            FailOn::Error => Severity::Error,
        };
        let bad = report.findings.iter().any(|finding| finding.severity >= limit);
        Ok(if bad { Outcome::Bad } else { Outcome::Good })
    }

    /// The cluster as it is, with the manifests applied where there are any.
    async fn read(&self, cluster: &ClusterArguments, path: Option<&Path>) -> anyhow::Result<Config> {
        anyhow::ensure!(
            cluster.is_there(),
            "nothing to analyze: name a directory of manifests, or a cluster with --kubeconfig FILE or KUBECONFIG"
        );
        let cluster = cluster.connect().await?;
        let mut objects = self.reading.of_cluster(&cluster).await?;
        if let Some(path) = path {
            objects.overlay(path)?;
        }
        Ok(Config::clone(&objects.publish()))
    }

    fn is_wanted(&self, finding: &Finding) -> bool {
        let (Some(wanted), Some(object)) = (&self.namespace, &finding.origin.object) else { return true };
        object.namespace.as_deref() == Some(wanted) || (&*object.kind == "Namespace" && *object.name == **wanted)
    }
}

impl Report<'_> {
    fn for_people(&self) -> String {
        let mut text = String::new();
        if !self.findings.is_empty() {
            let rows: Vec<Vec<String>> = self.findings.iter().map(|finding| row(finding)).collect();
            text = table(&["CODE", "SEVERITY", "WHERE", "WHAT", "REMEDY"], &rows) + "\n";
        }
        let count = |severity| self.findings.iter().filter(|finding| finding.severity == severity).count();
        text + &format!(
            "{}, {}; {}, {}, {} for information.\n",
            plural(self.workloads, "workload"),
            plural(self.services, "service"),
            plural(count(Severity::Error), "error"),
            plural(count(Severity::Warning), "warning"),
            count(Severity::Info),
        )
    }
}

fn row(finding: &Finding) -> Vec<String> {
    let what = match &finding.field {
        Some(field) => format!("{field}: {}", finding.message),
        None => finding.message.clone(),
    };
    vec![
        finding.code.to_string(),
        finding.severity.to_string(),
        finding.origin.to_string(),
        what,
        finding.remedy.to_owned(),
    ]
}

fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
