//! `mesh-ctl analyze`: the findings about a directory of manifests.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mesh_config::{Finding, Severity, load};
use serde::Serialize;

use crate::Outcome;
use crate::manifests::Reading;
use crate::output::{Format, print, print_value, table};

/// Says what is wrong with manifests, and what to do.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Analyze {
    /// A directory of manifests, or one file.
    path: PathBuf,
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
    findings: &'a [Finding],
}

impl Analyze {
    pub(crate) fn run(&self) -> anyhow::Result<Outcome> {
        let config = load(&self.path, &self.reading.options())?;
        let report = Report {
            workloads: config.snapshot.workloads().len(),
            services: config.snapshot.services().len(),
            findings: &config.findings,
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
}

impl Report<'_> {
    fn for_people(&self) -> String {
        let mut text = String::new();
        if !self.findings.is_empty() {
            let rows: Vec<Vec<String>> = self.findings.iter().map(row).collect();
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
