//! `mesh-ctl top`: what goes on by Service, as two readings of counters tell it.

pub(crate) mod rates;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use mesh_admin::{Traffic, path};

use self::rates::Rates;
use crate::Outcome;
use crate::cluster::ClusterArguments;
use crate::daemon::Daemon;
use crate::fleet::{self, Target};
use crate::output::{Format, note, print_line, print_raw, table};
use crate::reach::{Asking, Reach};

/// Seconds between two readings.
const INTERVAL: u64 = 2;
/// Moves a terminal's cursor home and clears what is behind it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Shows what goes on by Service, live: requests, errors, durations, connections, bytes, the share in mutual TLS.
///
/// A node's daemon tells of connections into its pods, and of requests of Services without a waypoint; a waypoint of requests of
/// its Services. Name all of them for the whole picture: nothing is counted twice.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Top {
    /// The admin socket of a daemon of this machine; may be given several times. Without one, the daemons, waypoints and gateways of the
    /// cluster (with -n the waypoints and gateways of that namespace alone), or the daemon of this machine.
    #[arg(long = "socket", value_name = "PATH", env = "MESH_ADMIN_SOCKET")]
    sockets: Vec<PathBuf>,
    /// The admin socket of a waypoint of this machine; may be given several times.
    #[arg(long = "waypoint", value_name = "PATH")]
    waypoints: Vec<PathBuf>,
    /// Only Services of this namespace.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Prints one table, of one interval, and ends.
    #[arg(long)]
    once: bool,
    /// Seconds between two readings.
    #[arg(long, value_name = "SECONDS", default_value_t = INTERVAL, value_parser = clap::value_parser!(u64).range(1..=300))]
    interval: u64,
    /// What has most of it is first.
    #[arg(long, value_enum, default_value = "requests")]
    sort: Column,
    /// At most so many Services.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// The form of the output: one line of JSON, or one document of YAML, an interval.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// By what Services are put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Column {
    Requests,
    Errors,
    P99,
    Connections,
    Bytes,
    Name,
}

impl Top {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let targets = self.targets(cluster).await?;
        let mut before = read(&targets).await?;
        loop {
            tokio::time::sleep(Duration::from_secs(self.interval)).await;
            let after = read(&targets).await?;
            self.show(&before, &after)?;
            if self.once {
                return Ok(after.outcome);
            }
            before = after;
        }
    }

    /// The sockets that are named, or the daemons of the cluster with its waypoints and gateways, or those of the namespace that is asked for.
    async fn targets(&self, cluster: &ClusterArguments) -> anyhow::Result<Vec<Target>> {
        let named = self.sockets.iter().cloned().map(Daemon::at);
        let named = named.chain(self.waypoints.iter().cloned().map(Daemon::waypoint_at));
        let named: Vec<_> = named.map(|daemon| Target { name: daemon.name(), daemon: Ok(daemon) }).collect();
        if !named.is_empty() {
            return Ok(named);
        }
        let asking = Reach::default().find(cluster).await?;
        let is_cluster = matches!(asking, Asking::Several(_));
        let mut targets = asking.targets();
        if is_cluster {
            let cluster = cluster.connect().await?;
            let proxies = match &self.namespace {
                Some(namespace) => cluster.proxies(namespace, None).await,
                None => cluster.all_proxies().await,
            };
            match proxies {
                Ok(proxies) => targets.extend(proxies),
                Err(why) => note(&format!("without waypoints and gateways: {why:#}")),
            }
        }
        Ok(targets)
    }

    fn show(&self, before: &Reading, after: &Reading) -> anyhow::Result<()> {
        let seconds = after.at.saturating_duration_since(before.at).as_secs_f64();
        let told = before.told.iter().zip(&after.told);
        let rates =
            rates::between(told.filter_map(|(before, after)| Some((before.as_ref()?, after.as_ref()?, seconds))));
        let wanted = |rates: &Rates| self.namespace.as_deref().is_none_or(|namespace| rates.namespace == namespace);
        let mut rates: Vec<_> = rates.into_iter().filter(wanted).collect();
        // By name where they are equal, which is how they come.
        rates.sort_by(|one, other| self.sort.of(other).total_cmp(&self.sort.of(one)));
        rates.truncate(self.limit.unwrap_or(usize::MAX));
        if self.output != Format::Table {
            return print_line(&rates, self.output);
        }
        let clear = if self.once || !std::io::stdout().is_terminal() { "" } else { CLEAR };
        let mut rows: Vec<_> = rates.iter().map(Rates::row).collect();
        // Whoever reads a file, or through a pipe, gets the names whole.
        if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdout()) {
            fit(&mut rows, usize::from(size.ws_col));
        }
        print_raw(&format!("{clear}{}", table(&HEADINGS, &rows)))
    }
}

const HEADINGS: [&str; 10] =
    ["NAMESPACE", "SERVICE", "REQ/S", "ERR", "P50 MS", "P99 MS", "CONN/S", "OPEN", "BYTES/S", "MTLS"];
/// The columns of names, which come first.
const NAMES: usize = 2;
/// What a name keeps, however narrow the terminal is.
const LEAST_NAME: usize = 7;

/// Cuts names where the table would be wider than the terminal, the longer ones first.
fn fit(rows: &mut [Vec<String>], width: usize) {
    let widest = |column: usize, rows: &[Vec<String>]| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([HEADINGS[column].chars().count()]).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..HEADINGS.len()).map(|column| widest(column, rows)).collect();
    let gaps = 2 * (HEADINGS.len() - 1);
    while widths.iter().sum::<usize>() + gaps > width {
        let longest = (0..NAMES).filter(|column| widths[*column] > LEAST_NAME.max(HEADINGS[*column].len()));
        let Some(longest) = longest.max_by_key(|column| widths[*column]) else { break };
        widths[longest] -= 1;
    }
    for row in rows {
        for (cell, width) in row.iter_mut().zip(&widths).take(NAMES) {
            if cell.chars().count() > *width {
                *cell = cell.chars().take(width - 1).chain(['…']).collect();
            }
        }
    }
}

impl Column {
    fn of(self, rates: &Rates) -> f64 {
        match self {
            Self::Requests => rates.requests_per_second,
            Self::Errors => rates.error_ratio.unwrap_or(0.0),
            Self::P99 => rates.p99_milliseconds.unwrap_or(0.0),
            Self::Connections => rates.connections_per_second,
            Self::Bytes => rates.bytes_per_second,
            Self::Name => 0.0,
        }
    }
}

/// What all programs told at a moment.
struct Reading {
    at: Instant,
    /// One of each program, in their order; nothing of one that did not answer.
    told: Vec<Option<Traffic>>,
    outcome: Outcome,
}

async fn read(targets: &[Target]) -> anyhow::Result<Reading> {
    let said = fleet::ask(targets.to_vec(), async |daemon| daemon.get::<Traffic>(path::TRAFFIC, &[]).await).await;
    let outcome = fleet::tell_unreachable(&said)?;
    Ok(Reading { at: Instant::now(), told: said.into_iter().map(|said| said.answer.ok()).collect(), outcome })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(namespace: &str, service: &str) -> Vec<String> {
        let numbers = ["12345", "12.5%", "123.4", "123456", "123.4", "12345", "123.4M", "99.9%"];
        [namespace, service].into_iter().chain(numbers).map(str::to_owned).collect()
    }

    #[test]
    fn a_terminal_of_eighty_columns_shows_every_figure_and_what_there_is_room_for_of_names() {
        let mut rows = vec![row("mesh-system", "notification-service-of-the-shop"), row("shop", "cart")];
        fit(&mut rows, 80);
        let shown = table(&HEADINGS, &rows);
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        assert!(shown.contains("99.9%") && shown.contains('…') && shown.contains("shop       cart "), "{shown}");
        let mut rows = vec![row("mesh-system", "notification-service-of-the-shop")];
        let whole = rows.clone();
        fit(&mut rows, 200);
        assert_eq!(rows, whole);
    }
}
