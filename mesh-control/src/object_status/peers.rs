//! The other replicas of mesh-control: which there are, and what is in force at those whom they tell, as each says itself.
//!
//! Only the replica that leads asks, and only about what is on its way. The others are known by the EndpointSlices of the
//! Service, which name those as well that are not ready: their nodes may still be connected.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use mesh_ca::{Link, RemoteSettings, explain};
use mesh_core::lock::UnpoisonedMutex as _;
use mesh_transport::TrustFeed;
use mesh_xds::proto::Wanted;
use mesh_xds::{Count, Inquiry, MAX_WANTED};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt as _;

use super::progress::OnTheirWay;
use super::{ON_ITS_WAY, TRY_AGAIN};

/// How long a replica may take to answer a question, or to be reached.
const PATIENCE: Duration = Duration::from_secs(2);
/// Replicas that are asked. Of more it is said that nothing is known of theirs.
const MAX_PEERS: usize = 64;

/// How the other replicas are found and asked.
pub(crate) struct PeerSettings {
    pub(crate) namespace: String,
    /// The Service that selects all replicas.
    pub(crate) service: String,
    /// This replica's pod; none where it runs in no pod.
    pub(crate) own_pod: Option<String>,
    /// At which port they are asked.
    pub(crate) port: u16,
    /// The name in their certificates.
    pub(crate) server_name: String,
    pub(crate) root: PathBuf,
    pub(crate) token: PathBuf,
    pub(crate) trust: TrustFeed,
}

/// What a replica has said; none where it could not be asked.
type Said = Option<HashMap<Wanted, Count>>;

/// The other replicas.
pub(super) struct Peers {
    slices: Api<EndpointSlice>,
    settings: PeerSettings,
    on_their_way: OnTheirWay,
    /// What each has said last, by its pod's name; none until it is known which there are.
    said: Mutex<Option<BTreeMap<String, Said>>>,
}

impl Peers {
    pub(super) fn new(client: Client, settings: PeerSettings, on_their_way: OnTheirWay) -> Arc<Self> {
        let slices = Api::namespaced(client, &settings.namespace);
        Arc::new(Self { slices, settings, on_their_way, said: Mutex::default() })
    }

    /// What each says of a version of an object: none of one that has said nothing of it. Nothing while it is not known which there
    /// are.
    pub(super) fn counts(&self, wanted: &Wanted) -> Option<Vec<Option<Count>>> {
        let said = self.said.lock_unpoisoned();
        let count = |said: &Said| said.as_ref().and_then(|said| said.get(wanted).copied());
        said.as_ref().map(|peers| peers.values().map(count).collect())
    }

    /// Asks whoever there is, until dropped.
    pub(super) async fn follow(self: &Arc<Self>) {
        *self.said.lock_unpoisoned() = None;
        let (reader, writer) = reflector::store();
        let config =
            watcher::Config::default().labels(&format!("kubernetes.io/service-name={}", self.settings.service));
        let mut events = pin!(reflector(writer, watcher(self.slices.clone(), config)).default_backoff());
        let (mut conversations, mut is_known) = (Conversations::default(), false);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => is_known |= matches!(event, watcher::Event::InitDone),
                Err(error) => tracing::warn!(%error, "other replicas are not followed; it is tried again"),
            }
            if is_known {
                let slices = reader.state();
                let peers = peers(slices.iter().map(AsRef::as_ref), self.settings.own_pod.as_deref());
                self.keep(&peers, &mut conversations);
            }
        }
    }

    /// Has these asked, and nobody else.
    fn keep(self: &Arc<Self>, peers: &BTreeMap<String, IpAddr>, conversations: &mut Conversations) {
        conversations.retain(peers);
        let mut said = self.said.lock_unpoisoned();
        let said = said.get_or_insert_default();
        said.retain(|name, _| conversations.has(name));
        for (name, address) in peers {
            said.entry(name.clone()).or_insert(None);
            if !conversations.has(name) && conversations.count() < MAX_PEERS {
                let (peers, name, address) = (Arc::clone(self), name.clone(), *address);
                conversations.begin(name.clone(), address, async move { peers.ask(&name, address).await });
            }
        }
    }

    /// Asks one replica for as long as there is something to ask, again and again.
    async fn ask(&self, name: &str, address: IpAddr) {
        let settings = RemoteSettings {
            address: SocketAddr::new(address, self.settings.port).to_string(),
            name: self.settings.server_name.clone(),
            root: self.settings.root.clone(),
            token: self.settings.token.clone(),
        };
        let link = match Link::new(&settings, self.settings.trust.clone()) {
            Ok(link) => link,
            Err(error) => return tracing::error!(%error, "other replicas cannot be asked: see --server-name"),
        };
        let mut is_told = false;
        loop {
            let problem = self.converse(name, &link, &mut is_told).await;
            self.note(name, None);
            if !std::mem::replace(&mut is_told, true) {
                let address = link.address();
                tracing::warn!(
                    replica = name,
                    address,
                    problem,
                    "it does not say what is in force at its nodes; it is asked again"
                );
            }
            sleep(TRY_AGAIN).await;
        }
    }

    /// Asks until that fails; says why it did.
    async fn converse(&self, name: &str, link: &Link, is_told: &mut bool) -> String {
        let late = |_| format!("no answer within {} s", PATIENCE.as_secs());
        self.on_their_way.any().await;
        let mut inquiry = match timeout(PATIENCE, Inquiry::begin(link)).await.map_err(late) {
            Ok(Ok(inquiry)) => inquiry,
            Ok(Err(status)) => return explain(&status),
            Err(problem) => return problem,
        };
        loop {
            let wanted = self.on_their_way.all();
            let mut said = HashMap::with_capacity(wanted.len());
            for wanted in wanted.chunks(MAX_WANTED) {
                match timeout(PATIENCE, inquiry.ask(wanted.to_vec())).await.map_err(late) {
                    Ok(Ok(counts)) => said.extend(wanted.iter().cloned().zip(counts)),
                    Ok(Err(status)) => return explain(&status),
                    Err(problem) => return problem,
                }
            }
            *is_told = false;
            // Where nothing is asked any more, nothing that was said before counts.
            self.note(name, Some(said));
            sleep(ON_ITS_WAY).await;
            if wanted.is_empty() {
                self.on_their_way.any().await;
            }
        }
    }

    fn note(&self, name: &str, said: Said) {
        if let Some(known) = self.said.lock_unpoisoned().as_mut().and_then(|peers| peers.get_mut(name)) {
            *known = said;
        }
    }
}

/// The replicas that Slices name, but for this one, with an address of each.
fn peers<'a>(slices: impl Iterator<Item = &'a EndpointSlice>, own: Option<&str>) -> BTreeMap<String, IpAddr> {
    let endpoints = slices.filter_map(|slice| slice.endpoints.as_ref()).flatten();
    let named = endpoints.filter_map(|endpoint| {
        let address = endpoint.addresses.first()?;
        let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.clone());
        Some((pod.unwrap_or_else(|| address.clone()), address.parse().ok()?))
    });
    named.filter(|(name, _)| Some(name.as_str()) != own).collect()
}

/// A task for each replica, by its pod's name; they end when this is dropped.
#[derive(Default)]
struct Conversations {
    tasks: JoinSet<()>,
    known: BTreeMap<String, (IpAddr, tokio::task::AbortHandle)>,
}

impl Conversations {
    /// Ends those with others than these.
    fn retain(&mut self, peers: &BTreeMap<String, IpAddr>) {
        self.known.retain(|name, (address, task)| {
            let is_there = peers.get(name) == Some(address);
            if !is_there {
                task.abort();
            }
            is_there
        });
        while self.tasks.try_join_next().is_some() {}
    }

    fn has(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    fn count(&self) -> usize {
        self.known.len()
    }

    fn begin(&mut self, name: String, address: IpAddr, conversation: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(conversation);
        self.known.insert(name, (address, task));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn peers_are_all_pods_of_the_service_but_our_own_ready_or_not() {
        let slice: EndpointSlice = serde_json::from_value(json!({
        "addressType": "IPv4", "ports": [], "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "one"}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}, "targetRef": {"kind": "Pod", "name": "two"}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "own"}},
            {"addresses": ["10.0.0.4"], "conditions": {}},
        ]}))
        .unwrap();
        let found = peers([&slice].into_iter(), Some("own"));
        let found: Vec<_> = found.iter().map(|(name, address)| (name.as_str(), address.to_string())).collect();
        let expected = [("10.0.0.4", "10.0.0.4"), ("one", "10.0.0.1"), ("two", "10.0.0.2")];
        assert_eq!(found, expected.map(|(name, address)| (name, address.to_owned())));
    }
}
