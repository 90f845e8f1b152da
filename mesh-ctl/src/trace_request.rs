//! `mesh-ctl trace-request`: sends one request from inside a pod's network namespace, marked for tracing, and shows what daemons and
//! waypoints of this machine tell of it.
//!
//! Whoever runs it has to be root here, and could enter the pod anyway: it gains no identity that root has not.

mod hops;
mod sender;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use hyper::Uri;
use mesh_admin::{FlowSelection, WAYPOINT_SOCKET, Why, path};

use self::hops::{Hop, Listening, Report};
use self::sender::{Marks, Sent};
use crate::Outcome;
use crate::cluster::ClusterArguments;
use crate::daemon::Daemon;
use crate::output::{Format, print, print_value};
use crate::reach::{Asking, Reach};

/// Sends one request from inside a pod of this node, marked for tracing, and shows each hop: who, when, what was decided and by what.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct TraceRequest {
    /// The method.
    method: String,
    /// What is asked for: http://SERVICE.NAMESPACE[:PORT]/PATH?QUERY, or an address for the host.
    url: Uri,
    /// The pod that it is sent from, which runs on this node: NAMESPACE/POD, or a name.
    #[arg(long, value_name = "POD")]
    from: String,
    /// The namespace of names that say none; all namespaces without it.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// A field of its header, as `NAME: VALUE`; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = field)]
    headers: Vec<(String, String)>,
    /// Marks it in B3's form as well.
    #[arg(long)]
    b3: bool,
    /// The admin socket of a waypoint that may read it; may be given several times. Without it, /run/mesh/waypoint.sock if it is there.
    #[arg(long, value_name = "SOCKET")]
    waypoint: Vec<PathBuf>,
    /// The admin socket of another node's daemon, if this machine has one; may be given several times.
    #[arg(long, value_name = "SOCKET")]
    peer: Vec<PathBuf>,
    /// How long to wait for the answer, and then for what hops tell, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    wait: u64,
    #[command(flatten)]
    reach: Reach,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

impl TraceRequest {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        if self.url.scheme_str() != Some("http") {
            bail!("{}: write the request as http://SERVICE.NAMESPACE[:PORT]/PATH", self.url);
        }
        let Asking::One(daemon) = self.reach.find(cluster).await? else {
            bail!(
                "a request is sent from the node that its pod runs on: run this there, as root, with --socket /run/mesh/admin.sock"
            );
        };
        let why = self.connection(&daemon).await?;
        let inode = why.node.as_ref().and_then(|node| node.network_namespace);
        let inode =
            inode.with_context(|| format!("{} is not in the mesh, and nobody tells of its requests", self.from))?;
        let namespace = sender::network_namespace(inode)?;
        let marks = Marks::random(self.b3)?;
        let limit = Duration::from_secs(self.wait);
        let mut listening = self.listen(&daemon, &marks, limit).await?;
        let sent = self.send(namespace, why.asked, &marks, limit).await?;
        let wanted = self.wanted(&why);
        let hops = listening.heard(sent.local, &wanted, limit).await;
        let report = Report::new(&marks, &why, (sent, hops), &wanted);
        match self.output {
            Format::Table => print(&report.for_people())?,
            format => print_value(&report, format)?,
        }
        Ok(if report.has_answer() { Outcome::Good } else { Outcome::Bad })
    }

    /// Who should tell: what a waypoint sends on is on connections of its own, which other clients share.
    fn wanted(&self, why: &Why) -> Vec<&'static str> {
        let by_waypoint = why.ways.iter().any(|way| way.path == "waypoint");
        let is_tunnelled = why.ways.iter().any(|way| way.path == "tunnel");
        let wanted = [("node", true), ("waypoint", by_waypoint), ("peer", is_tunnelled && !self.peer.is_empty())];
        wanted.into_iter().filter_map(|(by, is_wanted)| is_wanted.then_some(by)).collect()
    }

    /// The connection that it will be on, as the pod's node has it.
    async fn connection(&self, daemon: &Daemon) -> anyhow::Result<Why> {
        let authority = self.url.authority().context("the URL names no host")?;
        let asked = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        let mut query = vec![("src", self.from.clone()), ("dst", asked)];
        query.extend(self.namespace.clone().map(|namespace| ("namespace", namespace)));
        let why: Why = daemon.get(path::WHY, &query).await?;
        let here = why.node.as_ref().map(|node| &node.node);
        match &why.source.node {
            Some(node) if Some(node) == here => Ok(why),
            Some(node) => bail!("{} runs on {node}: run this there", self.from),
            None => bail!("{} is no pod", self.from),
        }
    }

    /// Listens to the daemon and to waypoints, which have begun to tell when this is done.
    async fn listen(&self, daemon: &Daemon, marks: &Marks, limit: Duration) -> anyhow::Result<Listening> {
        let mut listening = Listening::default();
        let events = ["closed", "refused", "cut"].map(str::to_owned).to_vec();
        listening.begin("node", daemon.clone(), FlowSelection { events: events.clone(), ..FlowSelection::default() });
        let of_trace = || FlowSelection { trace: Some(marks.trace.clone()), ..FlowSelection::default() };
        let usual = Path::new(WAYPOINT_SOCKET);
        let usual = (self.waypoint.is_empty() && usual.exists()).then(|| usual.to_owned());
        for socket in self.waypoint.iter().cloned().chain(usual) {
            listening.begin("waypoint", Daemon::waypoint_at(socket), of_trace());
        }
        for socket in &self.peer {
            let events = events.clone();
            listening.begin("peer", Daemon::at(socket.clone()), FlowSelection { events, ..FlowSelection::default() });
        }
        listening.begun(limit).await?;
        Ok(listening)
    }

    async fn send(&self, namespace: File, to: SocketAddr, marks: &Marks, limit: Duration) -> anyhow::Result<Sent> {
        let host = self.url.authority().context("the URL names no host")?.as_str();
        let target = self.url.path_and_query().map_or("/", |target| target.as_str());
        let mut headers = vec![("host".to_owned(), host.to_owned()), ("connection".to_owned(), "close".to_owned())];
        headers.retain(|(name, _)| !self.headers.iter().any(|(own, _)| own == name));
        headers.extend(self.headers.iter().cloned());
        headers.extend(marks.fields());
        sender::send(namespace, to, (&self.method, target), &headers, limit).await
    }
}

impl Hop {
    /// The order in which hops are told of: by their time, and the client's node first.
    fn order(&self) -> (bool, u64) {
        (self.by != "node", self.at_milliseconds)
    }
}
