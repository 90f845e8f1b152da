//! mesh-bench: raw TCP, the mesh and Envoy over the same two pods, in interleaved repeats.
//!
//! `cargo xtask bench` runs it. It judges no timing: it prints, keeps and compares.
#![forbid(unsafe_code)]

mod args;
mod cases;
mod distribution;
mod figures;
mod gateway;
mod result;
mod run;
mod samples;
mod sampling;
mod snapshot;
mod stage;
mod statistics;
mod subjects;
mod table;
mod telemetry;

use anyhow::Result;
use clap::Parser as _;

fn main() -> Result<()> {
    let args = args::Args::parse().settled();
    match args.inner {
        Some(args::Inner::Connecting { to, count }) => cases::connecting(to, count),
        Some(args::Inner::Asking { to, millis, until }) => gateway::asking(to, millis, until),
        Some(args::Inner::Told { responses, changes }) => snapshot::follow(&responses, changes),
        Some(args::Inner::Snapshot(cluster)) => snapshot::run(&cluster),
        Some(args::Inner::Distribution(nodes)) => distribution::run(&nodes),
        Some(args::Inner::Gateway(gateway)) => gateway::run(&gateway, &args::results()?),
        Some(args::Inner::Telemetry(telemetry)) => telemetry::run(&telemetry, &args::results()?),
        None => run::run(&args),
    }
}
