//! `mesh-ctl trace-request`: sends one request from inside a pod's network namespace, marked for tracing, and shows what daemons and
//! waypoints tell of it.
//!
//! Whoever runs it has to be root on the pod's node, and could enter the pod anyway: it gains no identity that root has not. On a
//! cluster that is who may run programs in the daemon's pod, from where it is sent; to listen, the ports that are forwarded are enough.

mod hops;
mod listening;
mod order;
mod sender;
mod witnesses;

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use hyper::Uri;
use mesh_admin::{RequestQuestion, RequestWhy, Why, path};

use self::hops::Report;
pub(crate) use self::order::SendRequest;
use self::order::{Limit, Order};
use self::sender::{Marks, Sent};
use self::witnesses::Witnesses;
use crate::Outcome;
use crate::cluster::{Cluster, ClusterArguments};
use crate::daemon::Daemon;
use crate::fleet::{self, Target};
use crate::output::{Format, print, print_value};
use crate::reach::{Asking, Reach};

/// Octets of a header that are read of a file.
const MAX_HEADER: u64 = 64 << 10;

/// Sends one request from inside a pod, marked for tracing, and shows each hop: who, when, what was decided and by what.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct TraceRequest {
    /// The method.
    method: String,
    /// What is asked for: http://SERVICE.NAMESPACE[:PORT]/PATH?QUERY, or an address for the host.
    url: Uri,
    /// The pod that it is sent from, which runs on this node or on one of the cluster: NAMESPACE/POD, or a name.
    #[arg(long, value_name = "POD")]
    from: String,
    /// The namespace of names that say none; all namespaces without it.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// A field of its header, as `NAME: VALUE`, or @FILE for a file with one on each line, up to an empty one (`@-`: standard input); may
    /// be given several times. A `traceparent` names the trace that it belongs to.
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// Marks it in B3's form as well.
    #[arg(long)]
    b3: bool,
    /// The admin socket of a waypoint of this machine that may read it; may be given several times. Without it,
    /// /run/mesh/waypoint.sock if it is there. On a cluster, the waypoint that reads it is asked.
    #[arg(long, value_name = "SOCKET")]
    waypoint: Vec<PathBuf>,
    /// The admin socket of another node's daemon, if this machine has one; may be given several times. On a cluster, servers' nodes are
    /// asked.
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

/// A request that is to be sent.
struct Request<'a> {
    method: &'a str,
    url: &'a Uri,
    /// Without what marks it.
    headers: Vec<(String, String)>,
    marks: Marks,
    /// How long to wait for the answer.
    limit: Limit,
}

fn field(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text.split_once(':').with_context(|| format!("-H {text:?}: write NAME: VALUE"))?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// The fields of a file.
fn fields_of(file: &str) -> anyhow::Result<Vec<(String, String)>> {
    let reader: Box<dyn Read> = match file {
        "-" => Box::new(std::io::stdin()),
        file => Box::new(std::fs::File::open(file).with_context(|| format!("-H @{file}"))?),
    };
    let mut fields = Vec::new();
    for line in BufReader::new(reader.take(MAX_HEADER)).lines() {
        let line = line.with_context(|| format!("-H @{file}"))?;
        if line.is_empty() {
            break;
        }
        fields.push(field(&line)?);
    }
    Ok(fields)
}

impl TraceRequest {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let request = self.request()?;
        let limit = request.limit.into();
        let is_of_a_cluster = self.reach.is_of_a_cluster(cluster)?;
        let (why, witnesses) = match self.reach.find(cluster).await? {
            Asking::One(daemon) if !is_of_a_cluster => self.of_machine(daemon, &request).await?,
            asking => self.of_cluster(&cluster.connect().await?, asking.targets(), &request).await?,
        };
        let order = Order::new(&request, &why)?;
        let mut listening = witnesses.listen(&why, &request.marks, limit).await?;
        let sent = if is_of_a_cluster { order.give(&witnesses.client).await? } else { order.carry_out().await? };
        let wanted = witnesses.wanted(&why);
        let mut heard = listening.heard(sent.local, &wanted, limit).await;
        witnesses.ask_behind_the_waypoint(&mut listening, &mut heard).await;
        let report = Report::new(&request.marks, why, sent, heard, !is_of_a_cluster);
        match self.output {
            Format::Table => print(&report.for_people())?,
            format => print_value(&report, format)?,
        }
        Ok(if report.has_answer() { Outcome::Good } else { Outcome::Bad })
    }

    fn request(&self) -> anyhow::Result<Request<'_>> {
        if self.url.scheme_str() != Some("http") || self.url.authority().is_none() {
            bail!("{}: write the request as http://SERVICE.NAMESPACE[:PORT]/PATH", self.url);
        }
        let mut headers = Vec::new();
        for text in &self.headers {
            match text.strip_prefix('@') {
                Some(file) => headers.extend(fields_of(file)?),
                None => headers.push(field(text)?),
            }
        }
        let marks = Marks::new(&mut headers, self.b3)?;
        Ok(Request { method: &self.method, url: &self.url, headers, marks, limit: Limit::seconds(self.wait) })
    }

    /// Those of this machine.
    async fn of_machine(&self, daemon: Daemon, request: &Request<'_>) -> anyhow::Result<(Why, Witnesses)> {
        let why = self.connection(&daemon).await?;
        let here = why.node.as_ref().map(|node| &node.node);
        match &why.source.node {
            Some(node) if Some(node) == here => {}
            Some(node) => bail!("{} runs on {node}: run this there", self.from),
            None => bail!("{} is no pod", self.from),
        }
        let (servers, _) = self.readers(&daemon, request, &why).await;
        Ok((why, Witnesses::of_machine(daemon, &self.waypoint, &self.peer, &servers)))
    }

    /// Those of a cluster.
    async fn of_cluster(
        &self,
        cluster: &Cluster,
        targets: Vec<Target>,
        request: &Request<'_>,
    ) -> anyhow::Result<(Why, Witnesses)> {
        ensure!(
            self.waypoint.is_empty() && self.peer.is_empty(),
            "--waypoint and --peer name sockets of this machine: on a cluster all who may tell of it are found"
        );
        let node = self.node(targets.clone()).await?;
        let daemons = cluster.daemons(None).await?;
        let named = |node: &str| daemons.iter().find(|target| target.name == node);
        let client = match named(&node).map(|target| &target.daemon) {
            Some(Ok(daemon)) => daemon.clone(),
            Some(Err(why)) => bail!("{} runs on {node}, where no daemon answers: {why}", self.from),
            None => bail!("{} runs on {node}, where there is no mesh-node", self.from),
        };
        let why = self.connection(&client).await?;
        let (servers, waypoint) = self.readers(&client, request, &why).await;
        let waypoints = match waypoint.as_ref().and_then(|waypoint| waypoint.split_once('/')) {
            Some((namespace, name)) => cluster.proxies(namespace, Some(name)).await?,
            None => Vec::new(),
        };
        let waypoints = waypoints.into_iter().filter_map(|replica| replica.daemon.ok()).collect();
        let servers = witnesses::nodes_of(&client, servers).await?.into_iter();
        let servers = servers.filter_map(|(pod, node)| Some((pod, named(&node)?.daemon.clone().ok()?))).collect();
        Ok((why, Witnesses { client, waypoints, servers }))
    }

    /// The node that the client's pod runs on: any daemon knows.
    async fn node(&self, targets: Vec<Target>) -> anyhow::Result<String> {
        let (from, namespace, url) = (self.from.clone(), self.namespace.clone(), self.url.clone());
        let question = move |daemon: Daemon| {
            let (from, namespace, url) = (from.clone(), namespace.clone(), url.clone());
            async move { connection(&daemon, &from, namespace, &url).await }
        };
        let mut refusal = anyhow::anyhow!("there is no daemon to ask");
        for said in fleet::ask(targets, question).await {
            match said.answer {
                Ok(why) => return why.source.node.with_context(|| format!("{} is no pod", self.from)),
                Err(error) => refusal = error.context(said.name),
            }
        }
        Err(refusal)
    }

    /// The connection that it will be on, as a daemon has it.
    async fn connection(&self, daemon: &Daemon) -> anyhow::Result<Why> {
        connection(daemon, &self.from, self.namespace.clone(), &self.url).await
    }

    /// The pods that may come to serve it, as NAMESPACE/NAME, and the waypoint that reads it.
    async fn readers(&self, daemon: &Daemon, request: &Request<'_>, why: &Why) -> (Vec<String>, Option<String>) {
        if !goes_by_waypoint(why) {
            let pods = why.ways.iter().map(|way| &way.destination);
            let name = |pod: &mesh_admin::Peer| Some(format!("{}/{}", pod.namespace.as_ref()?, pod.pod.as_ref()?));
            return (pods.filter_map(name).collect(), None);
        }
        // What it is not understood to become is seen when it is sent.
        let answer = self.asked(daemon, request).await.unwrap_or_default();
        let servers = answer.backends.into_iter().flat_map(|backend| backend.servers);
        (servers.filter_map(|server| server.pod).collect(), answer.waypoint)
    }

    /// What becomes of it where it is read, as a daemon has it; none where it says nothing.
    async fn asked(&self, daemon: &Daemon, request: &Request<'_>) -> Option<RequestWhy> {
        let question = RequestQuestion {
            source: Some(self.from.clone()),
            namespace: self.namespace.clone(),
            method: self.method.clone(),
            url: self.url.to_string(),
            headers: request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect(),
            ..RequestQuestion::default()
        };
        daemon.get(path::REQUEST, &question.to_query()).await.ok()
    }
}

/// Whether a waypoint reads it.
fn goes_by_waypoint(why: &Why) -> bool {
    why.ways.iter().any(|way| way.path == "waypoint")
}

async fn connection(daemon: &Daemon, from: &str, namespace: Option<String>, url: &Uri) -> anyhow::Result<Why> {
    let authority = url.authority().context("the URL names no host")?;
    let asked = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let mut query = vec![("src", from.to_owned()), ("dst", asked)];
    query.extend(namespace.map(|namespace| ("namespace", namespace)));
    daemon.get(path::WHY, &query).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_up_to_an_empty_line() {
        let place = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(place.path(), "Authorization: Bearer a:b\nx-y:1\n\nz: 2\n").expect("written");
        let fields = fields_of(&place.path().display().to_string()).expect("fields");
        assert_eq!(fields, [("authorization".into(), "Bearer a:b".into()), ("x-y".into(), "1".into())]);
        assert!(field("no colon").is_err() && fields_of("/nowhere").is_err());
    }
}
