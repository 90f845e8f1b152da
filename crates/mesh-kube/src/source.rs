//! All kinds together: what is told of them becomes a configuration, once every kind has been heard of.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use mesh_config::{Config, LiveObjects, ObjectName, Options, ReadKind, put_in_force, read_kinds};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::kind_watch::{self, KindEvent};
use crate::named_watch::NamedWatches;

/// What may be told and not yet taken. A list of any length passes through this, so that memory is bounded by what is kept.
const QUEUE: usize = 256;
/// How long nothing may be told before what was told is translated.
const QUIET: Duration = Duration::from_millis(10);
/// How long to wait for quiet at most.
const BOUND: Duration = Duration::from_millis(100);

/// Follows the cluster: the receiver has the configuration in force, from the first on.
///
/// The first is there when every kind has been listed, or is not known to the cluster; until then this waits, and says in the log
/// what it waits for. While the API server is away the last configuration stays in force. Ends when the last receiver is
/// dropped.
pub async fn watch(client: Client, options: Options) -> watch::Receiver<Arc<Config>> {
    let mut follower = Follower::start(&client, options);
    let first = loop {
        follower.take_what_is_told().await;
        if let Some(config) = follower.publish().await {
            break config;
        }
    };
    tracing::info!(generation = first.generation, findings = first.findings.len(), "cluster known");
    let (publisher, receiver) = watch::channel(first);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = publisher.closed() => return,
                () = follower.take_what_is_told() => {}
            }
            if let Some(config) = follower.publish().await {
                put_in_force(&publisher, config);
            }
        }
    });
    receiver
}

/// How far one kind is known.
#[derive(Debug, Default)]
struct Progress {
    settled: bool,
    /// What the list that is being read has said so far.
    listed: Option<HashSet<ObjectName>>,
}

struct Follower {
    kinds: Vec<(ReadKind, Progress)>,
    objects: Option<LiveObjects>,
    told: mpsc::Receiver<(usize, KindEvent)>,
    named: NamedWatches,
    /// Held so that they end with this.
    _watches: JoinSet<()>,
}

impl Follower {
    fn start(client: &Client, options: Options) -> Self {
        let (sender, told) = mpsc::channel(QUEUE);
        let mut watches = JoinSet::new();
        let kinds: Vec<_> = read_kinds(&options).into_iter().map(|kind| (kind, Progress::default())).collect();
        for (index, (kind, _)) in kinds.iter().enumerate() {
            watches.spawn(kind_watch::run(client.clone(), index, kind.clone(), sender.clone()));
        }
        // Told of by name, behind all kinds.
        let named = NamedWatches::new(client.clone(), kinds.len(), sender);
        Self { kinds, objects: Some(LiveObjects::new(options)), told, named, _watches: watches }
    }

    /// Waits until something is told, and then until nothing more is for a moment. Dropped half way, it loses nothing.
    async fn take_what_is_told(&mut self) {
        let Some((kind, told)) = self.told.recv().await else { return std::future::pending().await };
        self.take(kind, told);
        let bound = Instant::now() + BOUND;
        while let Ok(Some((kind, told))) = timeout_at((Instant::now() + QUIET).min(bound), self.told.recv()).await {
            self.take(kind, told);
        }
    }

    fn take(&mut self, kind: usize, told: KindEvent) {
        let Some(objects) = self.objects.as_mut() else { return };
        let Some((kind, progress)) = self.kinds.get_mut(kind) else { return take_named(objects, told) };
        match told {
            KindEvent::Begin => progress.listed = Some(HashSet::new()),
            KindEvent::Listed(name, value) => {
                if let Some(listed) = &mut progress.listed {
                    listed.insert(name.clone());
                }
                objects.apply(name, value);
            }
            KindEvent::Complete => {
                if let Some(listed) = progress.listed.take() {
                    forget_others(objects, kind, &listed);
                }
                progress.settled = true;
            }
            KindEvent::Changed(name, value) => objects.apply(name, value),
            KindEvent::Gone(name) => objects.remove(&name),
            KindEvent::Unknown => {
                if !std::mem::replace(&mut progress.settled, true) {
                    tracing::info!(kind = kind.kind, group = kind.group, "the cluster does not know this kind yet");
                }
            }
            KindEvent::AllGone => forget_others(objects, kind, &HashSet::new()),
        }
    }

    /// What is known means, once every kind has been heard of.
    async fn publish(&mut self) -> Option<Arc<Config>> {
        if !self.kinds.iter().all(|(_, progress)| progress.settled) {
            return None;
        }
        let (mut objects, config) = self.objects.take()?.publish_off_thread().await?;
        for name in self.named.follow(&config.named) {
            objects.remove(&name);
        }
        self.objects = Some(objects);
        Some(config)
    }
}

/// Forgets what a list of a kind does not have; of a kind of which one is read, that one alone: the others are told of by name.
fn forget_others(objects: &mut LiveObjects, kind: &ReadKind, listed: &HashSet<ObjectName>) {
    let Some((namespace, name)) = &kind.only else { return objects.retain(kind.group, kind.kind, listed) };
    let only = ObjectName {
        group: kind.group.into(),
        kind: kind.kind.into(),
        namespace: Some(namespace.as_str().into()),
        name: (*name).into(),
    };
    if !listed.contains(&only) {
        objects.remove(&only);
    }
}

fn take_named(objects: &mut LiveObjects, told: KindEvent) {
    match told {
        KindEvent::Changed(name, value) => objects.apply(name, value),
        KindEvent::Gone(name) => objects.remove(&name),
        // Of one object nothing else is told.
        KindEvent::Begin | KindEvent::Listed(..) | KindEvent::Complete | KindEvent::Unknown | KindEvent::AllGone => {}
    }
}
