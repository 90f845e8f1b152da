//! The control plane's program: the certificate authority, its files and its service over the network.
#![forbid(unsafe_code)]

mod admission;
mod authority;
mod distribution;
mod gateways;
mod kubernetes;
mod metrics;
mod node_taint;
mod node_tokens;
mod object_status;
mod placement;
mod redirection;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Certificate authority and configuration for the mesh.
#[derive(Debug, Parser)]
#[command(name = "mesh-control", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The certificate authority's files.
    #[command(subcommand)]
    Ca(authority::CaCommand),
    /// Serve certificates (Istio's IstioCertificateService) and the configuration (delta xDS) to node agents over the network.
    Serve(Box<serve::ServeArgs>),
    /// Print the version.
    Version,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Ca(command) => authority::run(&command),
        Command::Serve(args) => serve::run(*args),
        Command::Version => {
            println!("mesh-control {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_has_every_flag() {
        mesh_docs::hold("mesh-control.md", &mesh_docs::flags(<Arguments as clap::CommandFactory>::command()));
    }
}
