//! `mesh-ctl version`: this program's, and the daemon's if it is reached.

use clap::Args;
use mesh_admin::{Status, path};
use serde::Serialize;

use crate::Outcome;
use crate::daemon::Daemon;
use crate::output::{Format, print, print_value};

/// Prints the versions.
#[derive(Debug, Args)]
pub(crate) struct Version {
    #[command(flatten)]
    daemon: Daemon,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon: Option<String>,
    /// Why it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<String>,
}

impl Version {
    pub(crate) fn run(&self) -> anyhow::Result<Outcome> {
        let status: anyhow::Result<Status> = self.daemon.get(path::STATUS, &[]);
        let (daemon, unreachable) = match status {
            Ok(status) => (Some(status.version), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let versions = Versions { client: env!("CARGO_PKG_VERSION"), daemon, unreachable };
        match (self.output, &versions.daemon, &versions.unreachable) {
            (Format::Table, Some(daemon), _) => print(&format!("mesh-ctl  {}\nmesh-node {daemon}\n", versions.client))?,
            (Format::Table, None, why) => {
                let why = why.as_deref().unwrap_or_default();
                print(&format!("mesh-ctl  {}\nmesh-node not reached: {why}\n", versions.client))?;
            }
            (format, ..) => print_value(&versions, format)?,
        }
        Ok(Outcome::Good)
    }
}
