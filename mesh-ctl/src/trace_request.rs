//! `mesh-ctl trace-request`: sends one request from inside a pod's network namespace, marked for tracing, and shows what daemons and
//! waypoints tell of it.
//!
//! Whoever runs it has to be root on the pod's node, and could enter the pod anyway: it gains no identity that root has not.

mod hops;
mod listening;
mod sender;
mod witnesses;

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use hyper::Uri;
use mesh_admin::{RequestQuestion, RequestWhy, Why, path};

use self::hops::Report;
use self::sender::{Marks, Sent};
use self::witnesses::Witnesses;
use crate::Outcome;
use crate::cluster::ClusterArguments;
use crate::daemon::Daemon;
use crate::output::{Format, print, print_value};
use crate::reach::{Asking, Reach};

/// Octets of a header that are read of a file.
const MAX_HEADER: u64 = 64 << 10;

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
    /// A field of its header, as `NAME: VALUE`, or @FILE for a file with one on each line, up to an empty one (`@-`: standard input); may
    /// be given several times. A `traceparent` names the trace that it belongs to.
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// Marks it in B3's form as well.
    #[arg(long)]
    b3: bool,
    /// The admin socket of a waypoint of this machine that may read it; may be given several times. Without it,
    /// /run/mesh/waypoint.sock if it is there.
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

/// A request that is to be sent.
struct Request<'a> {
    method: &'a str,
    url: &'a Uri,
    /// Without what marks it.
    headers: Vec<(String, String)>,
    marks: Marks,
    /// How long to wait for the answer.
    limit: Duration,
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
        let Asking::One(daemon) = self.reach.find(cluster).await? else {
            bail!(
                "a request is sent from the node that its pod runs on: run this there, as root, with --socket /run/mesh/admin.sock"
            );
        };
        let (why, witnesses) = self.of_machine(daemon, &request).await?;
        let mut listening = witnesses.listen(&why, &request.marks, request.limit).await?;
        let sent = send(&request, &why).await?;
        let wanted = witnesses.wanted(&why);
        let mut heard = listening.heard(sent.local, &wanted, request.limit).await;
        witnesses.ask_behind_the_waypoint(&mut listening, &mut heard).await;
        let report = Report::new(&request.marks, why, sent, heard);
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
        let limit = Duration::from_secs(self.wait);
        Ok(Request { method: &self.method, url: &self.url, headers, marks, limit })
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
        let servers = self.servers(&daemon, request, &why).await;
        Ok((why, Witnesses::of_machine(daemon, &self.waypoint, &self.peer, &servers)))
    }

    /// The connection that it will be on, as a daemon has it.
    async fn connection(&self, daemon: &Daemon) -> anyhow::Result<Why> {
        let authority = self.url.authority().context("the URL names no host")?;
        let asked = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        let mut query = vec![("src", self.from.clone()), ("dst", asked)];
        query.extend(self.namespace.clone().map(|namespace| ("namespace", namespace)));
        daemon.get(path::WHY, &query).await
    }

    /// The pods that may come to serve it, as NAMESPACE/NAME.
    async fn servers(&self, daemon: &Daemon, request: &Request<'_>, why: &Why) -> Vec<String> {
        if !goes_by_waypoint(why) {
            let pods = why.ways.iter().map(|way| &way.destination);
            let name = |pod: &mesh_admin::Peer| Some(format!("{}/{}", pod.namespace.as_ref()?, pod.pod.as_ref()?));
            return pods.filter_map(name).collect();
        }
        // What it is not understood to become is seen when it is sent.
        let answer = self.asked(daemon, request).await.unwrap_or_default();
        let servers = answer.backends.into_iter().flat_map(|backend| backend.servers);
        servers.filter_map(|server| server.pod).collect()
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

/// Sends it from the pod of this machine.
async fn send(request: &Request<'_>, why: &Why) -> anyhow::Result<Sent> {
    let inode = why.node.as_ref().and_then(|node| node.network_namespace);
    let inode = inode.with_context(|| {
        let pod = why.source.pod.as_deref().unwrap_or("the pod");
        format!("{pod} is not in the mesh, and nobody tells of its requests")
    })?;
    let namespace = sender::network_namespace(inode)?;
    sender::send(namespace, why.asked, request).await
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
