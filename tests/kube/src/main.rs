//! Starts and removes a Kubernetes of two nodes on this machine; `cargo xtask kube` builds what it needs and runs it.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use mesh_kube_cluster::{Cluster, Home, balancer, node};

#[derive(Debug, Parser)]
#[command(name = "mesh-kube-cluster", version)]
struct Arguments {
    /// Which cluster, where this machine has several.
    #[arg(long, global = true, default_value_t = 0)]
    number: u8,
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start the cluster.
    Up,
    /// Remove all of it.
    Down,
    /// Show nodes and pods.
    Status,
    /// Print the path of the kubeconfig.
    Kubeconfig,
    /// Give images to all nodes.
    LoadImage {
        /// Docker or OCI archives.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// A step of the start: give addresses to Services.
    #[command(hide = true)]
    Balance,
    /// A step of the start: enter a node's namespaces.
    #[command(hide = true)]
    EnterNode {
        /// Which node.
        node: String,
    },
    /// A step of the start: be a node's first process.
    #[command(hide = true)]
    InitNode {
        /// Which node.
        node: String,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { number, command }: Arguments) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "namespaces, mounts and cgroups need root");
    match command {
        Action::Up => {
            let cluster = Cluster::up(number)?;
            println!("export KUBECONFIG={}", cluster.home().kubeconfig().display());
            println!("export PATH={}:$PATH", cluster.programs().directory().display());
        }
        Action::Down => Cluster::down(number)?,
        Action::Status => print!("{}", Cluster::of(number)?.status()?),
        Action::Kubeconfig => println!("{}", Cluster::of(number)?.home().kubeconfig().display()),
        Action::LoadImage { archives } => {
            let cluster = Cluster::of(number)?;
            for archive in archives {
                cluster.load_image(&archive, &archive.display().to_string())?;
            }
        }
        Action::Balance => {
            let cluster = Cluster::of(number)?;
            balancer::serve(cluster.home(), &cluster.kubectl())?;
        }
        Action::EnterNode { node } => node::enter(&Home::of(number), &node)?,
        Action::InitNode { node } => node::init(&Home::of(number), &node)?,
    }
    Ok(())
}
