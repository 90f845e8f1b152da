//! `mesh-demo`, which `cargo xtask demo` builds and runs: the mesh's main job on real traffic, step by step, with evidence.
#![forbid(unsafe_code)]

mod bank;
mod checkout;
mod claim;
mod kept;
mod knock;
mod kube;
mod processes;
mod scene;
mod screen;
mod shop;
mod stage;
mod steps;
mod table;
mod tour;
mod traffic;
mod wire;

use std::process::ExitCode;

use anyhow::Result;
use bank::Bank;
use clap::{Parser, Subcommand};
use knock::Knock;
use kube::Kube;
use screen::Screen;
use shop::Shop;
use stage::Stage;

/// Exit code where the demonstration cannot run at all.
const CANNOT_RUN: u8 = 2;

/// Two nodes, a shop, mTLS by identity: shows what the mesh does on real traffic, with evidence.
///
/// Exit codes: 0 everything held, 1 a step did not hold, 2 cannot run here.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo", bin_name = "cargo xtask demo")]
struct Cli {
    /// Leave everything up at the end, and say what to try.
    #[arg(long, conflicts_with = "down")]
    keep: bool,
    /// Remove what --keep left up.
    #[arg(long)]
    down: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// Other demonstrations, and parts of this one that run elsewhere than the rest.
#[derive(Debug, Subcommand)]
enum Part {
    /// A bank of eight services: who may talk to whom, each pair tried
    Bank {
        /// Leave everything up at the end, and say what to try.
        #[arg(long)]
        keep: bool,
    },
    /// The shop behind a waypoint: canary, retries, circuit breaking, faults, authorization, each by numbers
    Shop {
        /// Leave everything up at the end, and say what to try.
        #[arg(long)]
        keep: bool,
    },
    /// A real Kubernetes of two nodes: the mesh by Helm, the shop by kubectl, a waypoint, a canary
    Kube {
        /// Leave the cluster up at the end, and say what to try.
        #[arg(long, conflicts_with = "down")]
        keep: bool,
        /// Remove what --keep left up.
        #[arg(long)]
        down: bool,
    },
    /// A tunnel's client with a certificate of anybody's making.
    #[command(hide = true)]
    Knock(Knock),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "mesh-demo: making network namespaces and cgroups and loading eBPF programs needs root: run it with sudo"
        );
        return ExitCode::from(CANNOT_RUN);
    }
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mesh-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool> {
    let screen = Screen::new();
    if let Some(Part::Knock(knock)) = &cli.part {
        knock.run()?;
        return Ok(true);
    }
    if cli.down {
        let removed = kept::remove()?;
        let what =
            if removed.is_empty() { "nothing was left up".into() } else { format!("removed {}", removed.join(", ")) };
        screen.write(&what);
        return Ok(true);
    }
    if let Some(Part::Kube { down: true, .. }) = &cli.part {
        let was = kube::remove()?;
        screen.write(if was { "removed the cluster" } else { "nothing was left up" });
        return Ok(true);
    }
    let has_cluster = matches!(cli.part, Some(Part::Kube { .. }));
    mesh_lab::on_interrupt(move || {
        let removed = if has_cluster { kube::remove().map(drop) } else { Ok(()) };
        match removed {
            Ok(()) => screen.write("interrupted; everything was removed again"),
            Err(error) => screen.write(&format!("interrupted; not all was removed: {error:#}")),
        }
    })?;
    match &cli.part {
        Some(Part::Kube { keep, .. }) => tour::run::<Kube>(&screen, cli.keep || *keep),
        Some(Part::Bank { keep }) => tour::run::<Bank>(&screen, cli.keep || *keep),
        Some(Part::Shop { keep }) => tour::run::<Shop>(&screen, cli.keep || *keep),
        _ => tour::run::<Stage>(&screen, cli.keep),
    }
}
