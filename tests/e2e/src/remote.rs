//! The authority over the network, as a program on the first node.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Place as _, Process, binary};

use crate::{Mesh, NODES, PATIENCE};

/// Where the authority listens.
const PORT: u16 = 15012;

/// Where the nodes' tokens are, a file each, made where there is none.
fn tokens(mesh: &Mesh) -> Result<PathBuf> {
    let tokens = mesh.lab.home().join("tokens");
    for node in NODES.into_iter().filter(|node| !tokens.join(node).exists()) {
        let argv = ["ca", "token", "--dir", &tokens.display().to_string(), node];
        let made = Command::new(binary("mesh-control")?).args(argv).output().context("starting mesh-control")?;
        ensure!(made.status.success(), "{made:?}");
    }
    Ok(tokens)
}

/// Starts mesh-control on a node, with the mesh's authority and configuration.
pub fn start_control(mesh: &Mesh, node: &str) -> Result<Process> {
    let (ca, config) = (mesh.lab.ca_dir()?.display().to_string(), mesh.lab.config_dir().display().to_string());
    let (tokens, listen) = (tokens(mesh)?.display().to_string(), format!("0.0.0.0:{PORT}"));
    let argv = ["mesh-control", "serve", "--listen", &listen, "--ca", &ca, "--config", &config];
    let mut process = mesh.lab.node(node)?.spawn(&[&argv[..], &["--node-tokens", &tokens]].concat())?;
    process.wait_for_line("certificate authority listening", PATIENCE)?;
    Ok(process)
}

/// A mesh whose authority runs in node-a's network namespace.
pub struct Remote {
    // Before the mesh, so that it ends first.
    /// The authority, while it runs.
    pub authority: Option<Process>,
    /// More replicas of mesh-control.
    others: Vec<Process>,
    /// The machines and their daemons.
    pub mesh: Mesh,
    /// The nodes' tokens, a file each.
    pub tokens: PathBuf,
    /// The nodes that mesh-control runs on, where it tells of the configuration.
    replicas: Vec<String>,
}

impl Remote {
    /// Starts the authority, and a daemon on each node with certificates of this life.
    pub fn start(lifetime: &str) -> Result<Self> {
        let mut remote = Self::prepare()?;
        remote.start_authority()?;
        for node in NODES {
            remote.start_daemon(node, node, lifetime)?;
        }
        remote.mesh.label()?;
        Ok(remote)
    }

    /// Machines alone, and tokens for them.
    fn prepare() -> Result<Self> {
        let mesh = Mesh::without_daemons()?;
        let tokens = tokens(&mesh)?;
        Ok(Self { authority: None, others: Vec::new(), mesh, tokens, replicas: Vec::new() })
    }

    /// Starts mesh-control on these nodes, the first of which signs, and on each node a daemon that gets its configuration from
    /// them.
    pub fn feeding(replicas: &[&str]) -> Result<Self> {
        let mut remote = Self::prepare()?;
        remote.replicas = replicas.iter().map(|node| (*node).to_owned()).collect();
        remote.start_authority()?;
        for node in &replicas[1..] {
            let replica = remote.start_replica(node)?;
            remote.others.push(replica);
        }
        for node in NODES {
            remote.start_fed_daemon(node, node)?;
        }
        remote.mesh.label()?;
        Ok(remote)
    }

    /// Starts a node's daemon with the token of `bearer`, which gets its configuration from mesh-control.
    pub fn start_fed_daemon(&mut self, node: &str, bearer: &str) -> Result<()> {
        let flags = self.fed_flags(bearer)?;
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        self.mesh.start_daemon_with(node, &flags)
    }

    /// By which a daemon gets its configuration and its certificates there, with the token of `bearer`.
    pub fn fed_flags(&self, bearer: &str) -> Result<Vec<String>> {
        let mut flags = Vec::from(self.flags(bearer, "1h")?);
        let addresses = self.replicas.iter().map(|node| self.address(node)).collect::<Result<Vec<_>>>()?;
        flags.extend(["--control-address".to_owned(), addresses.join(",")]);
        Ok(flags)
    }

    /// Where mesh-control listens on a node.
    pub fn address(&self, node: &str) -> Result<String> {
        let home = self.mesh.lab.node(node)?;
        let ip = home.addresses().into_iter().find(IpAddr::is_ipv4).unwrap_or(Ipv4Addr::LOCALHOST.into());
        Ok(SocketAddr::new(ip, PORT).to_string())
    }

    /// Starts the authority, again where it was away.
    pub fn start_authority(&mut self) -> Result<()> {
        self.authority = Some(self.start_replica("node-a")?);
        Ok(())
    }

    fn start_replica(&self, node: &str) -> Result<Process> {
        start_control(&self.mesh, node)
    }

    /// Starts a node's daemon with the token of `bearer`.
    pub fn start_daemon(&mut self, node: &str, bearer: &str, lifetime: &str) -> Result<()> {
        let flags = self.flags(bearer, lifetime)?;
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        self.mesh.start_daemon_with(node, &flags)
    }

    /// By which a program has its certificates signed there, with the token of `bearer`.
    pub fn flags(&self, bearer: &str, lifetime: &str) -> Result<[String; 8]> {
        let address = self.address("node-a")?;
        let root = self.mesh.lab.ca_dir()?.join("root-cert.pem").display().to_string();
        let token = self.tokens.join(bearer).display().to_string();
        let flags =
            ["--ca-address", &address, "--ca-root", &root, "--ca-token", &token, "--certificate-lifetime", lifetime];
        Ok(flags.map(str::to_owned))
    }

    /// The authority's process.
    pub fn authority(&self) -> Result<&Process> {
        self.authority.as_ref().context("the authority is away")
    }

    /// The sum of a node's samples of this name that have these labels.
    pub fn metric(&self, node: &str, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(self.mesh.metrics(node)?.sum(name, labels))
    }
}
