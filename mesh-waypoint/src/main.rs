//! The mesh's L7 proxy.
//!
//! `mesh-waypoint serve` is a waypoint: nodes bring it what their pods send to the Services that it stands before, by tunnels
//! (`inbound/`); it routes each request (`exchange/`) to an endpoint, by a tunnel again (`upstream/`).
//! The same program is the ingress gateway, to whose listeners clients outside the mesh connect (`listeners/`).
#![forbid(unsafe_code)]

mod admin;
mod args;
mod authn;
mod counts;
mod duplex;
mod endpoints;
mod exchange;
mod freed_elsewhere;
mod gather;
mod inbound;
mod limits;
mod listeners;
mod per_service;
mod serve;
mod source;
mod telemetry;
mod upstream;
mod worker;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser as _;
use mesh_admin_server::{LogControl, LogOutput};
use tikv_jemallocator::Jemalloc;

use crate::args::{Args, Command, ServeArgs};

/// How long the log's last lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What a burst of requests took goes back to the kernel some seconds later; the C library's allocator keeps most of it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let Command::Serve(args) = Args::parse().command;
    match serve(*args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-waypoint: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let output = LogOutput::stdout().context("no thread for the log")?;
    let log = LogControl::start(&args.log, output.clone()).context("--log")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    let ended = tasks.block_on(&runtime, serve::run(args, log));
    output.finish(LAST_LINES);
    ended
}
