//! `mesh-ctl dashboard`: a page about the mesh, from the admin API of one or more daemons.
//!
//! It only reads. It listens on loopback, and elsewhere only with the names by which it is asked; every answer but the page itself needs
//! the token, which is in the fragment of the address: browsers send that to nobody.

mod edge_report;
mod graph;
mod links;
mod members;
mod nodes;
mod recent;
mod requests;
mod server;
mod services;
mod view;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::net::TcpListener;

use crate::Outcome;
use crate::cluster::{Cluster, ClusterArguments, Roster};
use crate::daemon::Daemon;
use crate::fleet::Target;
use crate::output::print;
use crate::reach::{Asking, Reach};

/// Where the random bytes of a token come from.
const RANDOM: &str = "/dev/urandom";
/// Bytes of a token: nobody guesses 128 bits.
const TOKEN_BYTES: usize = 16;

/// The shortest token of somebody else's making, in characters.
const LEAST_TOKEN: usize = 20;

/// Serves a page on loopback: the live graph of services, certificates, what is denied and why.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Dashboard {
    /// The admin socket of a daemon of this machine; may be given several times. Without it, the daemons of the cluster, or the
    /// one of this machine.
    #[arg(long = "socket", value_name = "PATH", env = "MESH_ADMIN_SOCKET")]
    sockets: Vec<PathBuf>,
    /// The admin socket of a waypoint or gateway of this machine; may be given several times. On a cluster all of them are asked.
    #[arg(long = "waypoint", value_name = "PATH")]
    waypoints: Vec<PathBuf>,
    /// Where to listen: an address of loopback, any free port unless one is named. Another address only with --host.
    #[arg(long, value_name = "ADDR", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))]
    listen: SocketAddr,
    /// A name by which the page may be asked for besides 127.0.0.1, [::1] and localhost; may be given several times. A request by another
    /// name is refused: somebody may have made it mean this address.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// A file with the token. Without it a new one is made, and printed with the address.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Asks the cluster that this pod runs in, by the pod's account.
    #[arg(long, conflicts_with_all = ["sockets", "waypoints"])]
    in_cluster: bool,
    /// On a cluster, asks waypoints and gateways of this namespace; may be given several times. Without it, those of all namespaces.
    #[arg(long = "proxies-of", value_name = "NAMESPACE")]
    namespaces: Vec<String>,
    #[command(flatten)]
    links: links::Links,
}

impl Dashboard {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        ensure!(
            self.listen.ip().is_loopback() || !self.hosts.is_empty(),
            "{} is not of loopback: the page shows who talks to whom; reach it from elsewhere by a tunnel of ssh, or say by which names it \
             is asked for with --host",
            self.listen
        );
        let token = match &self.token_file {
            Some(file) => token_of(file)?,
            None => token()?,
        };
        let members = self.members(cluster).await?;
        let listener = TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen at {}; name another port with --listen", self.listen))?;
        let address = listener.local_addr()?;
        let nodes = Arc::new(nodes::Nodes::new(self.links.clone()));
        // Who has the file has the token, and what is printed may be a log.
        let fragment = if self.token_file.is_none() { format!("#token={token}") } else { String::new() };
        print(&format!("http://{address}/{fragment}\n"))?;
        let door = server::Door { token, hosts: self.hosts.clone() };
        tokio::select! {
            () = members.follow(&nodes) => {}
            () = nodes.tell() => {}
            () = server::serve(listener, nodes.clone(), door.into()) => {}
            stopped = tokio::signal::ctrl_c() => stopped.context("cannot wait for an interrupt")?,
        }
        Ok(Outcome::Good)
    }

    /// Nodes' daemons, and waypoints and gateways: those of the sockets that are named, or of the cluster.
    async fn members(&self, cluster: &ClusterArguments) -> anyhow::Result<Members> {
        let named = |daemon: Daemon| Target { name: daemon.name(), daemon: Ok(daemon) };
        let proxies = self.waypoints.iter().cloned().map(Daemon::waypoint_at).map(named).collect();
        if !self.sockets.is_empty() {
            let daemons = self.sockets.iter().cloned().map(Daemon::at).map(named).collect();
            return Ok(Members::Named(Roster { daemons, proxies }));
        }
        let followed = |cluster| Members::Cluster(Box::new(cluster), self.namespaces.clone());
        if self.in_cluster {
            return Ok(followed(cluster.connect_from_inside()?));
        }
        match Reach::default().find(cluster).await? {
            Asking::One(daemon) => Ok(Members::Named(Roster { daemons: vec![named(daemon)], proxies })),
            Asking::Several(_) => Ok(followed(cluster.connect().await?)),
        }
    }
}

/// Whom the page is about.
enum Members {
    /// Those of sockets of this machine.
    Named(Roster),
    /// Those of a cluster, which come and go; proxies of these namespaces, or of all.
    Cluster(Box<Cluster>, Vec<String>),
}

impl Members {
    /// Tells who there is; runs until dropped.
    async fn follow(self, nodes: &Arc<nodes::Nodes>) {
        match self {
            Self::Named(roster) => {
                nodes.update(roster);
                std::future::pending().await
            }
            Self::Cluster(cluster, namespaces) => cluster.follow(&namespaces, |roster| nodes.update(roster)).await,
        }
    }
}

fn token_of(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("--token-file {}", file.display()))?;
    let token = text.trim();
    let is_plain = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    ensure!(
        is_plain && token.len() >= LEAST_TOKEN,
        "--token-file {}: a token has {LEAST_TOKEN} letters, digits, `-`, `_` and `.` at least",
        file.display()
    );
    Ok(token.to_owned())
}

fn token() -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut bytes = [0; TOKEN_BYTES];
    let read = std::fs::File::open(RANDOM).and_then(|mut random| random.read_exact(&mut bytes));
    read.with_context(|| format!("cannot read {RANDOM}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
