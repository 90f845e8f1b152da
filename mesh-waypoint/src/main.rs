//! The ingress gateway: brings connections from outside into the mesh under an identity of its own.
//!
//! So far it carries TCP to one Service (`mesh-waypoint gateway`). The waypoint's L7 work builds on the
//! same parts: the snapshot, `resolve`, and tunnels.
#![forbid(unsafe_code)]

mod gateway;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use mesh_ca::IdentityArgs;
use tracing_subscriber::EnvFilter;

/// The mesh's proxy for what no node can do alone.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Carries TCP connections from outside to a Service of the mesh.
    Gateway(GatewayArgs),
}

#[derive(Debug, clap::Args)]
struct GatewayArgs {
    /// Where to accept connections from outside.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// The Service to carry them to.
    #[arg(long, value_name = "NAME.NAMESPACE:PORT")]
    to: gateway::ServiceTarget,
    /// The gateway's own identity.
    #[arg(long, value_name = "NAMESPACE/SERVICE-ACCOUNT")]
    identity: gateway::Account,
    /// Directory of manifests (YAML or JSON); it is watched.
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    /// Its certificate.
    #[command(flatten)]
    certificate: IdentityArgs,
    /// DNS suffix of Services.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
}

fn main() -> ExitCode {
    let Command::Gateway(args) = Args::parse().command;
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(EnvFilter::new("info")).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(tokio::task::LocalSet::new().run_until(gateway::run(args))),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-waypoint: {error:#}");
            ExitCode::FAILURE
        }
    }
}
