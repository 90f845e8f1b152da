//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::cases::Case;
use crate::snapshot;
use crate::subjects::Subject;

/// Compares raw TCP, the mesh and Envoy over the same two pods, in interleaved repeats.
#[derive(Debug, Parser)]
#[command(name = "mesh-bench", bin_name = "cargo xtask bench", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) inner: Option<Inner>,
    /// How often each case is measured with each subject
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeats: u32,
    /// Seconds that each measurement under load takes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,
    /// Two repeats of one second, whatever else was said: to see that it works, not for figures
    #[arg(long)]
    quick: bool,
    /// Measure this case alone; may be repeated
    #[arg(long, value_enum, value_name = "CASE")]
    case: Vec<Case>,
    /// Measure this subject alone; may be repeated. Ratios need `raw`
    #[arg(long, value_enum, value_name = "SUBJECT")]
    subject: Vec<Subject>,
    /// Worker threads of each daemon and of each Envoy; one a core by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    workers: Option<u32>,
    /// More arguments for the mesh's daemons, separated by blanks: --mesh-args="--log info,access=off"
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    mesh_args: String,
    /// TCP's congestion control in the pods, such as cubic; the machine's default without it
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    /// Both pods on one node, where the kernel connects them; results are kept apart
    #[arg(long)]
    pub(crate) one_node: bool,
    /// Keep the cores from sleeping between packets, by a latency of 0 asked for at /dev/cpu_dma_latency
    #[arg(long)]
    pub(crate) awake: bool,
    /// Where results and Envoy are kept; beside the programs by default (target/bench)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What the bench does but compare.
#[derive(Debug, Subcommand)]
pub(crate) enum Inner {
    /// Connects again and again and says how long connect() took
    #[command(hide = true)]
    Connecting {
        /// A server that ends each connection at once
        #[arg(long)]
        to: SocketAddr,
        /// Connections that are timed
        #[arg(long)]
        count: usize,
    },
    /// Asks again and again and says how long the longest answer took
    #[command(hide = true)]
    Asking {
        /// A server of HTTP/1.1
        #[arg(long)]
        to: SocketAddr,
        /// Ends after so many milliseconds
        #[arg(long, conflicts_with = "until", required_unless_present = "until")]
        millis: Option<u64>,
        /// Ends by the first answer with this version
        #[arg(long)]
        until: Option<u32>,
    },
    /// Follows a cluster as it is told of, in a process of its own
    #[command(hide = true, name = snapshot::COMMAND)]
    Told {
        /// Each response after its length
        #[arg(long)]
        responses: PathBuf,
        /// Pods that are changed
        #[arg(long)]
        changes: u32,
    },
    /// Measures what a large cluster's manifests cost: memory, and the time until one pod's change is in force
    Snapshot(SnapshotArgs),
    /// Measures what it costs to tell nodes of the configuration: the first state, and the time until a policy is in force at all
    Distribution(DistributionArgs),
    /// Compares the proxy of requests with Envoy, as gateways with the same routes on one core each
    Gateway(GatewayArgs),
    /// Measures what telemetry costs: daemons as installed, with golden signals alone, and with neither; and what Prometheus reads
    Telemetry(TelemetryArgs),
}

/// How often, and of how many Services.
#[derive(Debug, clap::Args)]
pub(crate) struct TelemetryArgs {
    /// How often each case is measured with each kind of daemon
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeats: u32,
    /// Seconds that each measurement takes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,
    /// Both pods on one node, where the kernel carries, and shows what is said; results are kept apart
    #[arg(long)]
    pub(crate) one_node: bool,
    /// Services that Prometheus reads of
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) services: u32,
}

/// How long requests are sent.
#[derive(Debug, clap::Args)]
pub(crate) struct GatewayArgs {
    /// How often each case is measured with each subject
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeats: u32,
    /// Seconds that each measurement takes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,
}

/// The directory of results and of Envoy: beside the programs.
pub(crate) fn results() -> Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program's own path")?;
    let target = program.ancestors().nth(2).context("this program is not in target/<profile>: say --out")?;
    Ok(target.join("bench"))
}

/// How large the cluster is.
#[derive(Debug, clap::Args)]
pub(crate) struct SnapshotArgs {
    /// Pods
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) workloads: u32,
    /// Services
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) services: u32,
    /// Nodes
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) nodes: u32,
    /// How often one pod is changed
    #[arg(long, default_value_t = 20)]
    pub(crate) changes: u32,
}

/// How large the cluster is, and how many nodes are told of it.
#[derive(Debug, clap::Args)]
pub(crate) struct DistributionArgs {
    /// Pods
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) workloads: u32,
    /// Services
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) services: u32,
    /// Nodes that are told, each with a connection and a translation of its own
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) nodes: u32,
    /// How often a policy is changed
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) changes: u32,
}

impl Args {
    /// Fills in what `--quick` stands for.
    pub(crate) fn settled(mut self) -> Self {
        if self.quick {
            (self.repeats, self.seconds) = (2, 1);
        }
        self
    }

    /// The cases to measure, in the order in which they are measured.
    pub(crate) fn cases(&self) -> Vec<Case> {
        Case::ALL.into_iter().filter(|case| self.case.is_empty() || self.case.contains(case)).collect()
    }

    /// The subjects to measure, in the order in which they are measured.
    pub(crate) fn subjects(&self) -> Vec<Subject> {
        let chosen = if self.subject.is_empty() { Subject::USUAL.as_slice() } else { &self.subject };
        Subject::ALL.into_iter().filter(|subject| chosen.contains(subject)).collect()
    }

    /// Worker threads of each daemon and of each Envoy.
    pub(crate) fn workers(&self) -> u32 {
        let cores = || std::thread::available_parallelism().ok().and_then(|cores| cores.get().try_into().ok());
        self.workers.or_else(cores).unwrap_or(1)
    }

    /// More arguments for the daemons.
    pub(crate) fn mesh_args(&self) -> Vec<String> {
        self.mesh_args.split_whitespace().map(str::to_owned).collect()
    }

    /// The directory of results.
    pub(crate) fn out(&self) -> Result<PathBuf> {
        Ok(self.place()?.join(if self.one_node { "one-node" } else { "" }))
    }

    fn place(&self) -> Result<PathBuf> {
        if let Some(out) = &self.out {
            return std::path::absolute(out).with_context(|| format!("--out {}", out.display()));
        }
        results()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::parse_from(line.split(' ')).settled()
    }

    #[test]
    fn everything_is_measured_unless_something_is_named() {
        assert_eq!(args("bench").cases(), Case::ALL);
        assert_eq!(args("bench").subjects(), Subject::USUAL);
        assert_eq!(args("bench --case http-1 --case stream-1").cases(), [Case::Stream1, Case::Http1]);
        assert_eq!(args("bench --subject mesh").subjects(), [Subject::Mesh]);
    }

    #[test]
    fn quick_wins_over_repeats() {
        let quick = args("bench --quick --repeats 9");
        assert_eq!((quick.repeats, quick.seconds), (2, 1));
    }

    #[test]
    fn arguments_for_the_daemons_may_begin_with_hyphens() {
        let args = Args::parse_from(["bench", "--mesh-args", "--log info,access=off"]);
        assert_eq!(args.mesh_args(), ["--log", "info,access=off"]);
    }
}
