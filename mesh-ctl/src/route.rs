//! `mesh-ctl route`, and `why` of a request: who reads a request, what each of them decides, and who gets it. Nothing is sent.

pub(crate) mod replicas;
pub(crate) mod tell;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use clap::Args;
use mesh_admin::{RequestQuestion, RequestWhy, path};
use mesh_config::load;
use mesh_core::why::{NoToken, SameNode, Tokens};
use mesh_jwt::{AssumedClaims, Moment};

use crate::Outcome;
use crate::cluster::ClusterArguments;
use crate::daemon::{Daemon, Refused};
use crate::manifests::Reading;
use crate::output::{Format, print, print_value};
use crate::reach::{Asking, Reach, WaypointReach};

/// The longest file of claims that is read, in bytes.
const MAX_CLAIMS: u64 = 64 << 10;

/// Says who reads a request, which policies, limits and rule it meets, and who gets it, without sending it.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Route {
    /// What is asked for: http://SERVICE.NAMESPACE[:PORT]/PATH?QUERY; with --gateway, http[s]://HOST[:PORT]/PATH?QUERY.
    url: String,
    /// Who sends it: NAMESPACE/POD, the name of a pod or of its owner, or an address; with --gateway, an address outside.
    #[arg(long, value_name = "SRC")]
    from: Option<String>,
    /// The gateway that it comes in at from outside: its Gateway, or its pod.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    gateway: Option<String>,
    /// The namespace of names that say none; the sender's own without it.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    #[command(flatten)]
    head: Head,
    /// Answers by a directory of manifests, or one file, in place of a daemon.
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Asks the waypoint or gateway with this admin socket, in place of a daemon.
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["node", "config"])]
    waypoint: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    reading: Reading,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// What a request says beside its URL.
#[derive(Debug, Clone, Args)]
pub(crate) struct Head {
    /// The method of a request.
    #[arg(short = 'X', long, default_value = "GET")]
    method: String,
    /// A field of a request's header, as `NAME: VALUE`; may be given several times. `Host: NAME` asks for another host.
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// What the token of a request claims: a JSON object, a token whose signature nobody asks for, or @FILE with either.
    #[arg(long, value_name = "CLAIMS")]
    claims: Option<String>,
}

/// Who answers a question about a request.
pub(crate) enum Answering<'a> {
    /// A directory of manifests, or one file.
    Manifests(&'a PathBuf, &'a Reading, SameNode),
    /// A daemon or daemons.
    Daemons(&'a Reach),
}

impl Head {
    /// A question about a request with this head.
    pub(crate) fn question(&self, url: &str) -> anyhow::Result<RequestQuestion> {
        Ok(RequestQuestion {
            method: self.method.clone(),
            url: url.to_owned(),
            headers: self.headers.clone(),
            claims: self.claims.as_deref().map(claims).transpose()?,
            ..RequestQuestion::default()
        })
    }
}

/// Claims as they are given, or the file that they are in.
fn claims(text: &str) -> anyhow::Result<String> {
    let Some(file) = text.strip_prefix('@') else { return Ok(text.to_owned()) };
    let size = std::fs::metadata(file).with_context(|| format!("--claims @{file}"))?.len();
    anyhow::ensure!(size <= MAX_CLAIMS, "--claims @{file}: no token is that long");
    std::fs::read_to_string(file).with_context(|| format!("--claims @{file}"))
}

impl Route {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        let question = RequestQuestion {
            source: self.from.clone(),
            gateway: self.gateway.clone(),
            namespace: self.namespace.clone(),
            ..self.head.question(&self.url)?
        };
        let answer = match (&self.waypoint, &self.config) {
            (Some(socket), _) => ask(&Daemon::waypoint_at(socket.clone()), &question).await?,
            (None, Some(path)) => {
                Answering::Manifests(path, &self.reading, SameNode::Direct).answer(&question, cluster).await?
            }
            (None, None) => {
                let mut answer = Answering::Daemons(&self.reach).answer(&question, cluster).await?;
                replicas::complete(&mut answer, &question, (&self.reach, &[]), cluster).await;
                answer
            }
        };
        tell(&answer, self.output)
    }
}

/// Prints an answer.
pub(crate) fn tell(answer: &RequestWhy, format: Format) -> anyhow::Result<Outcome> {
    match format {
        Format::Table => print(&tell::for_people(answer))?,
        format => print_value(answer, format)?,
    }
    Ok(if answer.served { Outcome::Good } else { Outcome::Bad })
}

impl Answering<'_> {
    pub(crate) async fn answer(
        &self,
        question: &RequestQuestion,
        cluster: &ClusterArguments,
    ) -> anyhow::Result<RequestWhy> {
        match self {
            Self::Manifests(path, reading, same_node) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let now = Moment(now.as_secs_f64());
                let claims = question.claims.as_deref().map(|text| AssumedClaims::parse(text, now)).transpose();
                let claims = claims.context("--claims")?;
                let tokens: &dyn Tokens = claims.as_ref().map_or(&NoToken, |claims| claims);
                let snapshot = load(path, &reading.options())?.snapshot;
                RequestWhy::answer(&snapshot, question, *same_node, tokens, None).map_err(|error| anyhow!(error))
            }
            Self::Daemons(reach) => match gateway_of(question, reach, cluster).await? {
                Some(asking) => ask_any(asking, question).await,
                None => ask_any(reach.find(cluster).await?, question).await,
            },
        }
    }
}

/// On a cluster, the pods of a gateway that is asked about: they alone know its certificates.
async fn gateway_of(
    question: &RequestQuestion,
    reach: &Reach,
    cluster: &ClusterArguments,
) -> anyhow::Result<Option<Asking>> {
    let Some((namespace, name)) = question.gateway.as_deref().and_then(|gateway| gateway.split_once('/')) else {
        return Ok(None);
    };
    let of_gateways = WaypointReach::default();
    if !reach.is_of_a_cluster(cluster)? || !of_gateways.is_of_a_cluster(cluster, true)? {
        return Ok(None);
    }
    // A gateway that no pod runs for is answered for by the nodes.
    Ok(of_gateways.find(cluster, Some(namespace), Some(name)).await.ok())
}

async fn ask(daemon: &Daemon, question: &RequestQuestion) -> anyhow::Result<RequestWhy> {
    daemon.get(path::REQUEST, &question.to_query()).await
}

/// Every daemon has the whole configuration: the first that answers has answered.
async fn ask_any(asking: Asking, question: &RequestQuestion) -> anyhow::Result<RequestWhy> {
    let mut unreached = Vec::new();
    for target in asking.targets() {
        let answer = match &target.daemon {
            Ok(daemon) => ask(daemon, question).await,
            Err(why) => Err(anyhow!("{why}")),
        };
        match answer {
            Err(error) if !error.is::<Refused>() => unreached.push((target.name, error)),
            answered => return answered,
        }
    }
    if unreached.len() == 1
        && let Some((_, error)) = unreached.pop()
    {
        return Err(error);
    }
    let unreached: Vec<_> = unreached.iter().map(|(name, error)| format!("{name}: {error:#}")).collect();
    anyhow::bail!("nobody answers: {}", unreached.join("; "))
}
