//! `mesh-ctl log level`: what a daemon logs.

use clap::{Args, Subcommand};
use mesh_admin::{LogFilter, path};

use crate::Outcome;
use crate::daemon::Daemon;
use crate::output::print;

/// What can be done with the log.
#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Shows what the daemon logs, or changes it until its next start.
    Level(Level),
}

/// Shows or changes the filter.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Level {
    #[command(flatten)]
    daemon: Daemon,
    /// A level (error, warn, info, debug, trace, off), or directives such as `info,access=off`.
    filter: Option<String>,
}

impl Log {
    pub(crate) fn run(&self) -> anyhow::Result<Outcome> {
        let Self::Level(Level { daemon, filter }) = self;
        let in_force: LogFilter = match filter {
            None => daemon.get(path::LOG, &[])?,
            Some(filter) => daemon.put(path::LOG, &LogFilter { filter: filter.clone() })?,
        };
        print(&format!("{}\n", in_force.filter))?;
        Ok(Outcome::Good)
    }
}
