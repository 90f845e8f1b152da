//! mesh-traffic: servers and clients that show what TCP does between two pods, byte by byte.
//!
//! Servers print `listening ADDRESS` when they are ready, and a JSON line for every connection that ended. Clients print one
//! JSON object whose `outcome` says how it went.
#![forbid(unsafe_code)]

mod client;
mod get;
mod hold;
mod http;
mod many;
mod names;
mod outcome;
mod probe;
mod report;
mod sequence;
mod server;
mod socket;
mod transfer;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "mesh-traffic",
    version,
    about = "Servers and clients that show what TCP does between two pods, byte by byte",
    after_help = "A client's exit code is its outcome: 0 ok, 1 octets differ, 2 wrong usage, 3 refused, 4 reset, 5 timeout, \
                  6 end of stream, 7 not permitted, 8 unreachable, 9 anything else."
)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    #[command(flatten)]
    Server(server::Server),
    #[command(flatten)]
    Client(client::Client),
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    socket::allow_many_files().context("raising the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    let code = runtime.block_on(async {
        match arguments.role {
            Role::Server(server) => server::run(server).await.map(|()| ExitCode::SUCCESS),
            Role::Client(client) => {
                let (outcome, report) = client::run(client).await;
                report::print(&report);
                Ok(ExitCode::from(outcome.exit_code()))
            }
        }
    });
    // A connect() or a read of standard input that still blocks must not hold the end back.
    runtime.shutdown_background();
    code
}
