//! The node daemon. See ARCHITECTURE.md for the life of a connection through these files.

mod args;
mod bpf;
mod netns;
mod node;
mod pods;
mod proxy;
mod sockets;
mod telemetry;
mod workers;

use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

/// Exit code of a machine that lacks something.
const CANNOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let Ok(filter) = EnvFilter::try_new(&args.log) else {
        eprintln!("mesh-node: --log {}: not a level or filter; try info or info,access=off", args.log);
        return ExitCode::from(CANNOT_RUN);
    };
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
    let datapath = match node::prepare(&args) {
        Ok(datapath) => datapath,
        Err(error) => {
            eprintln!("mesh-node: {error:#}");
            return ExitCode::from(CANNOT_RUN);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(node::run(args, datapath)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}
