//! The node daemon. See ARCHITECTURE.md for the life of a connection through these files.

mod args;
mod bpf;
#[allow(dead_code, unused_imports, reason = "consumers land with the admin API and the re-judging of policies")]
mod connections;
mod memory;
#[allow(dead_code, reason = "consumers land with enrolment and direct connections")]
mod netlink;
mod netns;
mod node;
mod pods;
mod proxy;
#[allow(dead_code, reason = "consumers land with enrolment and direct connections")]
mod sock_diag;
mod sockets;
#[allow(dead_code, unused_imports, reason = "consumers land with the admin API and the re-judging of policies")]
mod telemetry;
#[allow(dead_code, reason = "consumers land with the admin API")]
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
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => failed(ExitCode::FAILURE, &error.into()),
    }
}

async fn run(args: args::Args) -> ExitCode {
    let prepared = match node::prepare(&args).await {
        Ok(prepared) => prepared,
        Err(error) => return failed(ExitCode::from(CANNOT_RUN), &error),
    };
    match node::run(args, prepared).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(ExitCode::FAILURE, &error),
    }
}

fn failed(code: ExitCode, error: &anyhow::Error) -> ExitCode {
    // Errors name their causes themselves.
    eprintln!("mesh-node: {error}");
    code
}
