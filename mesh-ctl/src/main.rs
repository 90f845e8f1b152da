//! The command line of the mesh.
#![forbid(unsafe_code)]

mod analyze;
mod output;
mod resolve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit codes, for scripts.
const EXIT_CODES: &str = "\
Exit codes:
  0  done; analyze: no errors, resolve: the connection goes somewhere
  1  analyze: errors among the findings, resolve: the connection is refused
  2  wrong usage, or something cannot be read or written";

#[derive(Debug, Parser)]
#[command(name = "mesh-ctl", version, about = "Looks into a mesh", after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says what is wrong with manifests, and what to do.
    Analyze(analyze::Analyze),
    /// Says where a connection to an address goes, and how.
    Resolve(resolve::Resolve),
    /// Prints the version.
    Version,
}

/// How a command ended that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    Bad,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Command::Analyze(analyze) => analyze.run(),
        Command::Resolve(resolve) => resolve.run(),
        Command::Version => version(),
    };
    match done {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::from(1),
        // The reader has seen enough.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(2)
        }
    }
}

fn version() -> anyhow::Result<Outcome> {
    output::print(concat!("mesh-ctl ", env!("CARGO_PKG_VERSION"), "\n"))?;
    Ok(Outcome::Good)
}
