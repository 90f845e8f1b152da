//! `mesh-ctl dashboard`: a page about the mesh, from the admin API of one or more daemons.
//!
//! It only reads. It listens on loopback alone, and every answer but the page itself needs the token, which is in the
//! fragment of the address: browsers send that to nobody.

mod graph;
mod nodes;
mod server;
mod view;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use clap::Args;
use mesh_admin::DEFAULT_SOCKET;
use tokio::net::TcpListener;

use crate::Outcome;
use crate::daemon::Daemon;
use crate::output::print;

/// Where the random bytes of a token come from.
const RANDOM: &str = "/dev/urandom";
/// Bytes of a token: nobody guesses 128 bits.
const TOKEN_BYTES: usize = 16;

/// Serves a page on loopback: the live graph of services, certificates, what is denied and why.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Dashboard {
    /// The admin socket of a node's daemon; may be given several times, for a page about several nodes.
    #[arg(long = "socket", value_name = "PATH", env = "MESH_ADMIN_SOCKET", default_value = DEFAULT_SOCKET)]
    sockets: Vec<PathBuf>,
    /// Where to listen: an address of loopback, any free port unless one is named.
    #[arg(long, value_name = "ADDR", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))]
    listen: SocketAddr,
}

impl Dashboard {
    pub(crate) fn run(&self) -> anyhow::Result<Outcome> {
        ensure!(
            self.listen.ip().is_loopback(),
            "{} is not of loopback: the page shows who talks to whom; reach it from elsewhere by a tunnel of ssh",
            self.listen
        );
        let token = token()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        runtime.block_on(async {
            let listener = TcpListener::bind(self.listen)
                .await
                .with_context(|| format!("cannot listen at {}; name another port with --listen", self.listen))?;
            let address = listener.local_addr()?;
            let daemons: Vec<_> = self.sockets.iter().cloned().map(Daemon::at).collect();
            let nodes = Arc::new(nodes::Nodes::new(daemons));
            print(&format!("http://{address}/#token={token}\n"))?;
            tokio::select! {
                () = nodes.follow() => {}
                () = server::serve(listener, nodes.clone(), token.into()) => {}
                stopped = tokio::signal::ctrl_c() => stopped.context("cannot wait for an interrupt")?,
            }
            Ok(Outcome::Good)
        })
    }
}

fn token() -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut bytes = [0; TOKEN_BYTES];
    let read = std::fs::File::open(RANDOM).and_then(|mut random| random.read_exact(&mut bytes));
    read.with_context(|| format!("cannot read {RANDOM}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
