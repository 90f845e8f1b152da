//! `mesh-ctl log level`: what a daemon logs.

use clap::{Args, Subcommand};
use mesh_admin::{LogFilter, path};

use crate::Outcome;
use crate::cluster::ClusterArguments;
use crate::fleet;
use crate::output::{print, table};
use crate::reach::{Asking, Reach};

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
    reach: Reach,
    /// A level (error, warn, info, debug, trace, off), or directives such as `info,access=off`.
    filter: Option<String>,
}

impl Log {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let Self::Level(Level { reach, filter }) = self;
        show(reach.find(cluster).await?, filter.as_deref(), "NODE").await
    }
}

/// Shows the filter in force, or puts another in force, of all that are asked.
pub(crate) async fn show(asking: Asking, filter: Option<&str>, heading: &str) -> anyhow::Result<Outcome> {
    let several = matches!(asking, Asking::Several(_));
    let said = fleet::ask(asking.targets(), |daemon| {
        let filter = filter.map(str::to_owned);
        async move {
            match filter {
                None => daemon.get::<LogFilter>(path::LOG, &[]).await,
                Some(filter) => daemon.put(path::LOG, &LogFilter { filter }).await,
            }
        }
    })
    .await;
    if !several {
        let in_force = fleet::only(said)?;
        print(&format!("{}\n", in_force.filter))?;
        return Ok(Outcome::Good);
    }
    let answers = said.iter().filter_map(|said| Some((said.name.clone(), said.answer.as_ref().ok()?.filter.clone())));
    let rows: Vec<_> = answers.map(|(name, filter)| vec![name, filter]).collect();
    print(&table(&[heading, "LOG"], &rows))?;
    fleet::tell_unreachable(&said)
}
