//! `mesh-ctl status --generation`: which generation of the configuration mesh-control serves, and where it is in force.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_admin::{DEFAULT_SOCKET, DISTRIBUTION, Distribution, Subscriber};
use serde::Serialize;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::Outcome;
use crate::cluster::{CONTROL_PORT, ClusterArguments};
use crate::fleet::{self, Said};
use crate::output::{Format, age, print, print_value, table};

/// How long a replica may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// Where replicas are asked that nobody has named, from inside a cluster.
const USUAL: &str = "mesh-control-replicas.mesh-system.svc:15014";
/// Replicas that are asked.
const MAX_REPLICAS: usize = 64;

/// What one replica says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Replica {
    /// Where it was asked, or its pod.
    address: String,
    #[serde(flatten)]
    distribution: Distribution,
    /// Why it said nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct Answer {
    replicas: Vec<Replica>,
    /// Nodes of the cluster with a daemon that no replica tells anything.
    untold: Vec<String>,
    /// No daemon runs in the cluster.
    without_nodes: bool,
}

/// Asks every replica: at these addresses, of which a name stands for all that it has; else the pods of the cluster that a
/// kubeconfig names.
pub(crate) async fn run(control: &[String], cluster: &ClusterArguments, format: Format) -> anyhow::Result<Outcome> {
    let is_by_kubeconfig = cluster.is_asked_for() || !Path::new(DEFAULT_SOCKET).exists() && cluster.is_there();
    let answer = match control {
        [] if is_by_kubeconfig => ask_pods(cluster).await?,
        [] => Answer { replicas: ask(&[USUAL.to_owned()]).await?, ..Answer::default() },
        control => Answer { replicas: ask(control).await?, ..Answer::default() },
    };
    match format {
        Format::Table => print(&answer.for_people())?,
        format => print_value(&answer, format)?,
    }
    Ok(if answer.is_everywhere() { Outcome::Good } else { Outcome::Bad })
}

/// By the API server's port-forward; it also knows which nodes there are.
async fn ask_pods(cluster: &ClusterArguments) -> anyhow::Result<Answer> {
    let cluster = cluster.connect().await?;
    let targets = cluster.control(CONTROL_PORT).await?;
    let place = &cluster.mesh_namespace;
    ensure!(!targets.is_empty(), "no mesh-control runs in namespace {place}: name its namespace with --mesh-namespace");
    let said = fleet::ask(targets, |replica| async move { replica.get(DISTRIBUTION, &[]).await }).await;
    let replicas = answered(said.into_iter().map(|Said { name, answer }| Replica::read(name, answer)).collect())?;
    let daemons = cluster.daemons_if_any().await?;
    let without_nodes = daemons.is_empty();
    let untold = untold(&replicas, daemons.into_iter().map(|daemon| daemon.name));
    Ok(Answer { replicas, untold, without_nodes })
}

/// The nodes that are no replica's subscribers.
fn untold(replicas: &[Replica], nodes: impl IntoIterator<Item = String>) -> Vec<String> {
    let callers = replicas.iter().flat_map(|replica| &replica.distribution.subscribers).map(|it| it.caller.as_str());
    let told: HashSet<&str> = callers.filter_map(|caller| caller.strip_prefix("node ")).collect();
    nodes.into_iter().filter(|node| !told.contains(node.as_str())).collect()
}

async fn ask(control: &[String]) -> anyhow::Result<Vec<Replica>> {
    let mut addresses = Vec::new();
    for name in control {
        let found = lookup_host(name).await;
        addresses.extend(found.with_context(|| format!("cannot look up {name}; name mesh-control with --control"))?);
    }
    addresses.sort_unstable();
    addresses.dedup();
    ensure!(!addresses.is_empty(), "no replica of mesh-control is known; name one with --control HOST:PORT");
    ensure!(addresses.len() <= MAX_REPLICAS, "more than {MAX_REPLICAS} replicas");
    let mut replicas = Vec::new();
    for address in addresses {
        let asked = timeout(PATIENCE, distribution(address)).await;
        let asked = asked.unwrap_or_else(|_| bail!("no answer within {} s", PATIENCE.as_secs()));
        replicas.push(Replica::read(address.to_string(), asked));
    }
    answered(replicas)
}

impl Replica {
    fn read(address: String, answer: anyhow::Result<Distribution>) -> Self {
        match answer {
            Ok(distribution) => Self { address, distribution, error: None },
            // A name may still have the address of one that has gone.
            Err(error) => Self { address, distribution: Distribution::default(), error: Some(format!("{error:#}")) },
        }
    }
}

/// What they say, where one has said something.
fn answered(replicas: Vec<Replica>) -> anyhow::Result<Vec<Replica>> {
    match replicas.iter().find_map(|replica| replica.error.as_ref()) {
        Some(error) if replicas.iter().all(|replica| replica.error.is_some()) => {
            bail!("mesh-control cannot be asked: {error}; name it with --control HOST:PORT")
        }
        _ => Ok(replicas),
    }
}

async fn distribution(address: SocketAddr) -> anyhow::Result<Distribution> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(DISTRIBUTION).header("host", address.to_string()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("its answer cannot be read: {error}"))?.to_bytes();
    serde_json::from_slice(&body).context("its answer is not what mesh-control says: is it the port of its metrics?")
}

/// What is the same at replicas that serve the same.
fn digest(version: &str) -> &str {
    version.split_once('-').map_or(version, |(_, digest)| digest)
}

impl Answer {
    fn is_everywhere(&self) -> bool {
        self.untold.is_empty() && !self.without_nodes && is_everywhere(&self.replicas)
    }

    fn for_people(&self) -> String {
        let mut text = for_people(&self.replicas);
        if !self.untold.is_empty() {
            let rows: Vec<_> = self.untold.iter().map(|node| vec![format!("node {node}")]).collect();
            text += &format!("\n{}", table(&["TOLD BY NOBODY"], &rows));
        }
        if self.without_nodes {
            text += "\nNo mesh-node runs: nothing is in force at any node. `mesh-ctl install` installs the mesh.\n";
        }
        text
    }
}

fn is_everywhere(replicas: &[Replica]) -> bool {
    let all = |replica: &Replica| {
        replica.error.is_none() && replica.distribution.subscribers.iter().all(|subscriber| subscriber.current)
    };
    let mut digests = replicas.iter().map(|replica| digest(&replica.distribution.version));
    let first = digests.next();
    digests.all(|other| Some(other) == first) && replicas.iter().all(all)
}

fn for_people(replicas: &[Replica]) -> String {
    let rows: Vec<_> = replicas
        .iter()
        .map(|Replica { address, distribution, error }| {
            let current = distribution.subscribers.iter().filter(|subscriber| subscriber.current).count();
            vec![
                address.to_string(),
                distribution.generation.to_string(),
                digest(&distribution.version).to_owned(),
                error.clone().unwrap_or_else(|| format!("{current} of {}", distribution.subscribers.len())),
            ]
        })
        .collect();
    let mut text = table(&["MESH-CONTROL", "GENERATION", "DIGEST", "IN FORCE AT"], &rows);
    let subscribers = replicas
        .iter()
        .flat_map(|Replica { address, distribution, .. }| distribution.subscribers.iter().map(move |it| (address, it)));
    let rows: Vec<_> = subscribers
        .map(|(address, subscriber)| {
            vec![
                subscriber.caller.clone(),
                subscriber.program.clone(),
                address.to_string(),
                age(subscriber.for_seconds),
                subscriber.acknowledged.clone().unwrap_or_else(|| "none".to_owned()),
                state(subscriber),
            ]
        })
        .collect();
    if !rows.is_empty() {
        text += &format!("\n{}", table(&["WHO", "PROGRAM", "TOLD BY", "SINCE", "IN FORCE", "STATE"], &rows));
    }
    text
}

fn state(subscriber: &Subscriber) -> String {
    match &subscriber.rejected {
        _ if subscriber.current => "current".to_owned(),
        Some(rejected) => format!("rejected: {rejected}"),
        None => "behind".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(version: &str, subscribers: Vec<Subscriber>) -> Replica {
        let distribution = Distribution { generation: 17, version: version.to_owned(), subscribers };
        Replica { address: "10.0.0.1:15014".to_owned(), distribution, error: None }
    }

    fn node(acknowledged: &str, rejected: Option<&str>) -> Subscriber {
        Subscriber {
            caller: "node a".to_owned(),
            acknowledged: Some(acknowledged.to_owned()),
            rejected: rejected.map(str::to_owned),
            current: acknowledged == "17-ab",
            ..Subscriber::default()
        }
    }

    #[test]
    fn it_is_everywhere_when_all_have_it_and_all_replicas_serve_the_same() {
        let cases = [
            (vec![replica("17-ab", vec![node("17-ab", None)])], true),
            (vec![replica("17-ab", vec![node("17-ab", None)]), replica("3-ab", vec![])], true),
            (vec![replica("17-ab", vec![]), replica("17-cd", vec![])], false),
            (vec![replica("17-ab", vec![node("16-ef", None)])], false),
        ];
        for (replicas, everywhere) in cases {
            assert_eq!(is_everywhere(&replicas), everywhere, "{replicas:?}");
        }
    }

    #[test]
    fn a_node_that_no_replica_tells_is_named_and_it_is_not_everywhere() {
        let replicas = vec![replica("17-ab", vec![]), replica("3-ab", vec![node("17-ab", None)])];
        let untold = untold(&replicas, ["a", "b"].map(str::to_owned));
        assert_eq!(untold, ["b"]);
        let answer = Answer { replicas, untold, ..Answer::default() };
        assert!(!answer.is_everywhere() && answer.for_people().contains("node b"), "{}", answer.for_people());
    }

    #[test]
    fn without_any_daemon_it_is_nowhere_and_what_is_served_is_shown() {
        let answer = Answer { replicas: vec![replica("17-ab", vec![])], without_nodes: true, ..Answer::default() };
        let text = answer.for_people();
        assert!(!answer.is_everywhere() && text.contains("No mesh-node runs") && text.contains("17"), "{text}");
    }

    #[test]
    fn who_is_behind_or_has_rejected_something_is_named() {
        let text = for_people(&[replica("17-ab", vec![node("16-ef", Some("x: no")), node("16-ef", None)])]);
        assert!(text.contains("0 of 2") && text.contains("rejected: x: no") && text.contains("behind"), "{text}");
    }
}
