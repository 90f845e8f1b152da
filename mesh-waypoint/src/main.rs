//! The mesh's L7 proxy.
//!
//! `mesh-waypoint serve` is a waypoint: nodes bring it what their pods send to the Services that it stands before, by tunnels
//! (`inbound/`); it routes each request (`exchange/`) to an endpoint, by a tunnel again (`upstream/`).
//! `mesh-waypoint gateway` brings TCP connections from outside to one Service; the ingress gateway will take its place.
#![forbid(unsafe_code)]

mod args;
mod duplex;
mod exchange;
mod gateway;
mod inbound;
mod readiness;
mod serve;
mod source;
mod upstream;
mod worker;

use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    let command = Args::parse().command;
    let filter = match &command {
        Command::Serve(args) => EnvFilter::try_new(&args.log).map_err(|error| anyhow::anyhow!("--log: {error}")),
        Command::Gateway(_) => Ok(EnvFilter::new("info")),
    };
    let run = || {
        tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter?).init();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = tokio::task::LocalSet::new();
        match command {
            Command::Serve(args) => tasks.block_on(&runtime, serve::run(*args)),
            Command::Gateway(args) => tasks.block_on(&runtime, gateway::run(*args)),
        }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-waypoint: {error:#}");
            ExitCode::FAILURE
        }
    }
}
