//! What it costs to tell nodes of the configuration: the first state of a large cluster, and the time until one policy's change
//! is in force at many nodes, over real TLS in this one process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use mesh_ca::{Caller, Denial, Gatekeeper, Link, RemoteSettings, SERVER_NAME, ServerIdentity};
use mesh_config::{Config, Options};
use mesh_core::{NodeName, SpiffeId, TrustDomain};
use mesh_transport::{CertificateAuthority, CertificateSource as _, LocalAuthority};
use mesh_xds::proto::Node;
use mesh_xds::{Following, OBJECT_TYPE, Publication, Replica, Session, State, Subscribers, XdsService, follow};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::args::DistributionArgs;
use crate::snapshot::Cluster;

/// Far more than any change takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// The one token that there is.
const TOKEN: &str = "the-token-of-every-node-of-the-bench";
/// The policy that changes.
const POLICY: &str = "policy.yaml";

/// Knows everybody by number.
struct Anybody;

impl Gatekeeper for Anybody {
    async fn authenticate(&self, token: &str) -> Result<Caller, Denial> {
        let number = token.strip_prefix(TOKEN).ok_or(Denial::UnknownCaller)?;
        Ok(Caller::Node(NodeName::from(number)))
    }

    async fn placed(&self, node: &NodeName, identity: &SpiffeId) -> Result<(), Denial> {
        Err(Denial::NotPlaced { identity: identity.clone(), node: node.clone() })
    }
}

/// Writes the cluster, tells the nodes of it, and changes a policy.
pub(crate) fn run(args: &DistributionArgs) -> Result<()> {
    // As mesh-control has it.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: &DistributionArgs) -> Result<()> {
    let directory = tempfile::tempdir().context("making a directory for the manifests")?;
    let manifests = directory.path().join("manifests");
    std::fs::create_dir(&manifests).context("making a directory for the manifests")?;
    let cluster = Cluster { pods: args.workloads, services: args.services, nodes: args.nodes };
    cluster.write(&manifests)?;
    let options = Options { served: true, ..Options::default() };
    let config = mesh_config::watch(manifests.clone(), options).await?;
    let mut publication = Publication::default();
    let state = publication.next(&config.borrow()).context("a first state")?;
    first_state(&state)?;
    let (served, subscribers, links) = serve(state, directory.path(), args.nodes).await?;
    tokio::spawn(publish(config, publication, served));
    let mut nodes = Vec::new();
    let started = Instant::now();
    for (number, link) in links.into_iter().enumerate() {
        let node = Node { id: number.to_string(), ..Node::default() };
        let (_, nothing) = tokio::sync::mpsc::channel(1);
        nodes.push(tokio::spawn(follow(vec![link], node, Options::default(), nothing)));
    }
    let mut followed = Vec::new();
    for node in nodes {
        followed.push(node.await?);
    }
    println!("{} nodes have it all in  {:>9.1} ms", followed.len(), millis(started.elapsed()));
    change(&manifests, args.changes, followed, &subscribers).await
}

/// What a node is told that has nothing.
fn first_state(state: &State) -> Result<()> {
    let mut replica = Replica::new(OBJECT_TYPE, Node::default());
    let mut session = Session::default();
    session.take(&replica.first_request(), state)?;
    let (mut octets, mut responses, mut resources) = (0, 0, 0);
    let started = Instant::now();
    while let Some(response) = session.next(state) {
        octets += response.encoded_len();
        responses += 1;
        resources += response.resources.len();
        let answer = replica.take(&response, |_| Ok(()));
        session.take(&answer, state)?;
    }
    let size = f64::from(u32::try_from(octets).unwrap_or(u32::MAX)) / f64::from(1 << 20);
    println!(
        "{resources} objects: {size:.1} MiB in {responses} responses, made in {:.0} ms",
        millis(started.elapsed())
    );
    let again = replica.first_request().encoded_len();
    let size = f64::from(u32::try_from(again).unwrap_or(u32::MAX)) / f64::from(1 << 20);
    let started = Instant::now();
    let mut session = Session::default();
    session.take(&replica.first_request(), state)?;
    let nothing = session.next(state).context("an answer")?;
    ensure!(nothing.resources.is_empty(), "something is told twice");
    println!(
        "a node that comes back asks in {size:.1} MiB, and is told nothing after {:.0} ms",
        millis(started.elapsed())
    );
    Ok(())
}

/// A server, and the ways to it, one for each node.
async fn serve(state: State, home: &Path, nodes: u32) -> Result<(watch::Sender<State>, Subscribers, Vec<Link>)> {
    let authority = CertificateAuthority::generate(&TrustDomain::default(), SystemTime::now())?;
    authority.write(&home.join("ca"), false)?;
    let authority = Arc::new(LocalAuthority::open(&home.join("ca"), SystemTime::now())?);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?.to_string();
    let identity = ServerIdentity::new(authority.clone(), SERVER_NAME)?;
    let (sender, receiver) = watch::channel(state);
    let signing = mesh_ca::CaService::new(authority.clone(), Anybody, TrustDomain::default(), PATIENCE);
    let service = XdsService::new(Anybody, receiver, signing);
    let subscribers = service.subscribers();
    tokio::spawn(mesh_ca::serve(listener, identity, service));
    let link = |number: u32| {
        let token: PathBuf = home.join(format!("token-{number}"));
        std::fs::write(&token, format!("{TOKEN}{number}")).context("writing a token")?;
        let (name, root) = (SERVER_NAME.to_owned(), home.join("ca/root-cert.pem"));
        let settings = RemoteSettings { address: address.clone(), name, root, token };
        Ok(Link::new(&settings, authority.trust())?)
    };
    Ok((sender, subscribers, (0..nodes).map(link).collect::<Result<_>>()?))
}

/// As mesh-control does it.
async fn publish(mut config: watch::Receiver<Arc<Config>>, mut publication: Publication, served: watch::Sender<State>) {
    while config.changed().await.is_ok() {
        let next = publication.next(&config.borrow_and_update());
        if let Some(next) = next {
            served.send_replace(next);
        }
    }
}

/// Changes a policy again and again, and says when nodes had it in force, and when all had said so.
async fn change(manifests: &Path, changes: u32, nodes: Vec<Following>, subscribers: &Subscribers) -> Result<()> {
    let (sender, mut told) = mpsc::unbounded_channel();
    let count = nodes.len();
    for Following { mut config, .. } in nodes {
        let sender = sender.clone();
        config.mark_unchanged();
        tokio::spawn(async move { while config.changed().await.is_ok() && sender.send(Instant::now()).is_ok() {} });
    }
    let (mut each, mut all) = (Vec::new(), Vec::new());
    for number in 0..changes {
        let action = if number % 2 == 0 { "DENY" } else { "ALLOW" };
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: team-0}}\n\
             spec: {{action: {action}, rules: [{{}}]}}\n"
        );
        let started = Instant::now();
        std::fs::write(manifests.join(POLICY), text).context("writing the policy")?;
        for _ in 0..count {
            let at = timeout(PATIENCE, told.recv()).await.context("the change does not arrive")?;
            each.push(at.context("nobody tells any more")?.duration_since(started));
        }
        let has = |told: Option<mesh_xds::Delivery>| told.is_some_and(|told| told.sent == told.acknowledged);
        while !subscribers.all().into_iter().all(|subscriber| has(subscriber.told)) {
            tokio::task::yield_now().await;
        }
        all.push(started.elapsed());
    }
    each.sort();
    all.sort();
    let at =
        |times: &[Duration], hundredth: usize| times.get((times.len() * hundredth / 100).min(times.len() - 1)).copied();
    for (what, times) in [("a policy in force at a node", &each), ("acknowledged by all nodes", &all)] {
        let (middle, late) = (at(times, 50).unwrap_or_default(), at(times, 99).unwrap_or_default());
        println!("{what:28} {:>9.1} ms, p99 {:.1}", millis(middle), millis(late));
    }
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
