//! Secrets and ConfigMaps, each watched by its name: whoever may read one of a namespace need not read the others.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use mesh_config::{Config, Key, NamedKind, NamedObjects, ObjectName};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::StreamExt as _;

use crate::kind_watch::{KindEvent, message};

/// What may be told and not yet taken.
const QUEUE: usize = 16;
/// Objects watched at once. One more is not read, and is missing.
const MOST: usize = 1024;
/// The first pause before a watch that failed is tried again, and the longest. The right to read one may come a moment
/// after the Gateway that names it.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The watches of those objects that are named.
pub(crate) struct NamedWatches {
    client: Client,
    /// Stands for the kind in what is told.
    index: usize,
    told: mpsc::Sender<(usize, KindEvent)>,
    running: BTreeMap<Named, AbortHandle>,
    /// Held so that they end with this.
    tasks: JoinSet<()>,
}

impl NamedWatches {
    pub(crate) fn new(client: Client, index: usize, told: mpsc::Sender<(usize, KindEvent)>) -> Self {
        Self { client, index, told, running: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Watches those that are named, and no others; gives the names of those that are not watched any more.
    pub(crate) fn follow(&mut self, named: &NamedObjects) -> Vec<ObjectName> {
        let named: BTreeSet<&Named> = named.values().flatten().take(MOST).collect();
        let gone: Vec<Named> = self.running.keys().filter(|key| !named.contains(key)).cloned().collect();
        for key in &gone {
            if let Some(watch) = self.running.remove(key) {
                watch.abort();
            }
        }
        for key in named {
            if !self.running.contains_key(key) {
                let watch = run(self.client.clone(), self.index, key.clone(), self.told.clone());
                self.running.insert(key.clone(), self.tasks.spawn(watch));
            }
        }
        // Those that ended were told to.
        while self.tasks.try_join_next().is_some() {}
        gone.iter().map(name).collect()
    }
}

/// One object, as it is now.
#[derive(Debug)]
pub enum NamedChange {
    /// It is there, or is another now.
    Put(ObjectName, Value),
    /// It is gone, or nobody names it any more.
    Gone(ObjectName),
}

/// Watches the objects that a configuration names, for whoever has the rest of it otherwise. Runs until the configuration ends, or
/// nobody takes what `tell` is given.
pub async fn follow_named<F>(client: Client, mut config: watch::Receiver<Arc<Config>>, tell: impl Fn(NamedChange) -> F)
where
    F: Future<Output = bool>,
{
    let (sender, mut told) = mpsc::channel(QUEUE);
    let mut watches = NamedWatches::new(client, 0, sender);
    loop {
        let named = Arc::clone(&config.borrow_and_update().named);
        for name in watches.follow(&named) {
            if !tell(NamedChange::Gone(name)).await {
                return;
            }
        }
        let change = tokio::select! {
            changed = config.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            // The other sender is held by this.
            told = told.recv() => told,
        };
        let change = match change {
            Some((_, KindEvent::Changed(name, value))) => NamedChange::Put(name, value),
            Some((_, KindEvent::Gone(name))) => NamedChange::Gone(name),
            // Of one object nothing else is told.
            _ => continue,
        };
        if !tell(change).await {
            return;
        }
    }
}

/// An object by its kind, namespace and name.
type Named = (NamedKind, Key);

fn name((kind, (namespace, name)): &Named) -> ObjectName {
    ObjectName { group: "".into(), kind: kind.as_str().into(), namespace: Some(namespace.clone()), name: name.clone() }
}

/// Watches one until the receiver is dropped.
async fn run(client: Client, index: usize, named: Named, told: mpsc::Sender<(usize, KindEvent)>) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", named.0.as_str()));
    let key = &named.1;
    let api: Api<DynamicObject> = Api::namespaced_with(client, &key.0, &resource);
    let mut pause = PAUSE;
    let mut failing = false;
    loop {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", key.1));
        let mut events = pin!(watcher(api.clone(), config));
        let mut listed = false;
        while let Some(event) = events.next().await {
            let message = match event {
                Ok(watcher::Event::Init) => {
                    listed = false;
                    continue;
                }
                Ok(watcher::Event::InitDone) if listed => continue,
                Ok(watcher::Event::InitDone) => KindEvent::Gone(name(&named)),
                Ok(event) => {
                    listed = true;
                    match message(event, &resource) {
                        KindEvent::Listed(name, value) => KindEvent::Changed(name, value),
                        other => other,
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        let (namespace, name, kind) = (&*key.0, &*key.1, named.0.as_str());
                        tracing::warn!(kind, namespace, name, %error, "object not read; what is known of it stays in force, and it is tried again");
                    }
                    break;
                }
            };
            (pause, failing) = (PAUSE, false);
            if told.send((index, message)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
