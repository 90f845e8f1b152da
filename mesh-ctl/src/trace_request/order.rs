//! The word to send a request from a pod: carried out on the pod's node, by this program or by the one in the daemon's pod.

use std::io::{BufRead as _, Read as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use mesh_admin::Why;
use serde::{Deserialize, Serialize};

use super::{Request, Sent, sender};
use crate::Outcome;
use crate::daemon::Daemon;
use crate::output::{Format, print_line};

/// The longest order, in bytes: a header is 64 KiB at most, and JSON makes it longer.
const MAX_ORDER: u64 = 1 << 20;
/// The command that carries it out in the daemon's pod.
const COMMAND: [&str; 2] = ["mesh-ctl", "send-request"];

/// How long to wait for an answer, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limit(u64);

impl Limit {
    pub(super) fn seconds(seconds: u64) -> Self {
        Self(seconds)
    }
}

impl From<Limit> for Duration {
    fn from(limit: Limit) -> Self {
        Self::from_secs(limit.0)
    }
}

/// A request, ready to be sent.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Order {
    /// The inode number of the pod's network namespace.
    pub(super) network_namespace: u64,
    pub(super) to: SocketAddr,
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// With what marks it.
    pub(super) headers: Vec<(String, String)>,
    pub(super) limit: Limit,
}

/// Sends the request that standard input says, and says what came of it: `mesh-ctl trace-request` runs this in a daemon's pod.
#[derive(Debug, Args)]
pub(crate) struct SendRequest {}

impl SendRequest {
    pub(crate) async fn run(&self) -> anyhow::Result<Outcome> {
        // By standard input: an argument would stand in the API server's audit log, and among the node's processes, with its tokens.
        let mut line = String::new();
        std::io::stdin().lock().take(MAX_ORDER).read_line(&mut line).context("reading standard input")?;
        let order: Order = serde_json::from_str(&line).context("what standard input says is no request")?;
        print_line(&order.carry_out().await?, Format::Json)?;
        Ok(Outcome::Good)
    }
}

impl Order {
    pub(super) fn new(request: &Request<'_>, why: &Why) -> anyhow::Result<Self> {
        let inode = why.node.as_ref().and_then(|node| node.network_namespace);
        let network_namespace = inode.with_context(|| {
            let pod = why.source.pod.as_deref().unwrap_or("the pod");
            format!("{pod} is not in the mesh, and nobody tells of its requests")
        })?;
        let host = request.url.authority().context("the URL names no host")?.as_str();
        let mut headers = vec![("host".to_owned(), host.to_owned()), ("connection".to_owned(), "close".to_owned())];
        headers.retain(|(name, _)| !request.headers.iter().any(|(own, _)| own == name));
        headers.extend(request.headers.iter().cloned());
        headers.extend(request.marks.fields());
        Ok(Self {
            network_namespace,
            to: why.asked,
            method: request.method.to_owned(),
            target: request.url.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
            headers,
            limit: request.limit,
        })
    }

    /// Sends it from a pod of this machine.
    pub(super) async fn carry_out(&self) -> anyhow::Result<Sent> {
        let namespace = sender::network_namespace(self.network_namespace)?;
        sender::send(namespace, self).await
    }

    /// Has it sent on the node of a daemon, from the daemon's pod.
    pub(super) async fn give(&self, daemon: &Daemon) -> anyhow::Result<Sent> {
        let mut input = serde_json::to_vec(self)?;
        input.push(b'\n');
        ensure!(input.len() as u64 <= MAX_ORDER, "the request's header is too long");
        let said = daemon.run(&COMMAND, &input, self.limit.into()).await?;
        serde_json::from_slice(&said).with_context(|| {
            format!("{} says what this mesh-ctl does not understand; are both of one version?", daemon.name())
        })
    }
}
