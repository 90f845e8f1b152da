//! The node daemon. See ARCHITECTURE.md for the life of a connection through these files.

mod admin;
mod args;
mod bpf;
mod connections;
mod direct;
mod drops;
mod handover;
mod hosts;
mod keeper;
mod kubelet;
mod lifecycle;
mod listeners;
mod memory;
mod netns;
mod node;
mod nri;
mod packets;
mod pod_events;
mod pods;
mod precheck;
mod proxy;
mod ready;
mod repairs;
mod sock_diag;
mod sockets;
mod telemetry;
mod workers;

use std::{process::ExitCode, time::Duration};

use mesh_admin_server::{LogControl, LogOutput};

/// Exit code of a machine that lacks something.
const CANNOT_RUN: u8 = 2;
/// How long the log's last lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = match args::CommandLine::read() {
        args::CommandLine::Run(args) => *args,
        args::CommandLine::Precheck(machine) => return precheck::run(&machine),
        args::CommandLine::Ready(whose) => return ready::run(&whose),
    };
    let output = match LogOutput::stdout() {
        Ok(output) => output,
        Err(error) => return failed(ExitCode::FAILURE, &error.into()),
    };
    let log = match LogControl::start(&args.log, output.clone()) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("mesh-node: --log: {error}");
            return ExitCode::from(CANNOT_RUN);
        }
    };
    let code = live(args, log);
    output.finish(LAST_LINES);
    code
}

fn live(args: args::Args, log: LogControl) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) if args.keep_listeners && !keeper::is_above() => runtime.block_on(keeper::run(&args.admin_socket)),
        Ok(runtime) => runtime.block_on(run(args, log)),
        Err(error) => failed(ExitCode::FAILURE, &error.into()),
    }
}

async fn run(args: args::Args, log: LogControl) -> ExitCode {
    let prepared = match node::prepare(&args).await {
        Ok(prepared) => prepared,
        Err(error) => return failed(ExitCode::from(CANNOT_RUN), &error),
    };
    match node::run(args, prepared, log).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(ExitCode::FAILURE, &error),
    }
}

fn failed(code: ExitCode, error: &anyhow::Error) -> ExitCode {
    // Errors name their causes themselves.
    eprintln!("mesh-node: {error}");
    code
}
