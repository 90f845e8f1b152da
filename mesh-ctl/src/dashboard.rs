//! `mesh-ctl dashboard`: a page about the mesh, from the admin API of one or more daemons.
//!
//! It only reads. It listens on loopback alone, and every answer but the page itself needs the token, which is in the
//! fragment of the address: browsers send that to nobody.

mod graph;
mod links;
mod nodes;
mod requests;
mod server;
mod services;
mod told;
mod view;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::net::TcpListener;

use crate::Outcome;
use crate::cluster::ClusterArguments;
use crate::daemon::Daemon;
use crate::fleet::Target;
use crate::output::{note, print};
use crate::reach::{Asking, Reach};

/// Where the random bytes of a token come from.
const RANDOM: &str = "/dev/urandom";
/// Bytes of a token: nobody guesses 128 bits.
const TOKEN_BYTES: usize = 16;

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
    /// Where to listen: an address of loopback, any free port unless one is named.
    #[arg(long, value_name = "ADDR", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))]
    listen: SocketAddr,
    #[command(flatten)]
    links: links::Links,
}

impl Dashboard {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        ensure!(
            self.listen.ip().is_loopback(),
            "{} is not of loopback: the page shows who talks to whom; reach it from elsewhere by a tunnel of ssh",
            self.listen
        );
        let token = token()?;
        let (daemons, proxies) = self.members(cluster).await?;
        let listener = TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen at {}; name another port with --listen", self.listen))?;
        let address = listener.local_addr()?;
        let nodes = Arc::new(nodes::Nodes::new(daemons, proxies, self.links.clone()));
        print(&format!("http://{address}/#token={token}\n"))?;
        tokio::select! {
            () = nodes.follow() => {}
            () = server::serve(listener, nodes.clone(), token.into()) => {}
            stopped = tokio::signal::ctrl_c() => stopped.context("cannot wait for an interrupt")?,
        }
        Ok(Outcome::Good)
    }
}

impl Dashboard {
    /// Nodes' daemons, and waypoints and gateways: those of the sockets that are named, or of the cluster.
    async fn members(&self, cluster: &ClusterArguments) -> anyhow::Result<(Vec<Daemon>, Vec<Daemon>)> {
        let waypoints = self.waypoints.iter().cloned().map(Daemon::waypoint_at).collect();
        if !self.sockets.is_empty() {
            return Ok((self.sockets.iter().cloned().map(Daemon::at).collect(), waypoints));
        }
        let asking = Reach::default().find(cluster).await?;
        let is_cluster = matches!(asking, Asking::Several(_));
        let daemons = reached(asking.targets());
        ensure!(!daemons.is_empty(), "there is no daemon to show: none of the cluster's runs");
        if !is_cluster {
            return Ok((daemons, waypoints));
        }
        match cluster.connect().await?.all_proxies().await {
            Ok(targets) => Ok((daemons, reached(targets))),
            Err(why) => {
                note(&format!("without waypoints and gateways: {why:#}"));
                Ok((daemons, Vec::new()))
            }
        }
    }
}

/// Those that there is a way to; a line about each of the others.
fn reached(targets: Vec<Target>) -> Vec<Daemon> {
    let mut daemons = Vec::with_capacity(targets.len());
    for target in targets {
        match target.daemon {
            Ok(daemon) => daemons.push(daemon),
            Err(why) => note(&format!("{}: left out: {why}", target.name)),
        }
    }
    daemons
}

fn token() -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut bytes = [0; TOKEN_BYTES];
    let read = std::fs::File::open(RANDOM).and_then(|mut random| random.read_exact(&mut bytes));
    read.with_context(|| format!("cannot read {RANDOM}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
