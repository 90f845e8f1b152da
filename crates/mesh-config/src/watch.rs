//! A directory followed by inotify.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::config::{Config, Loader, Options};
use crate::directory::DirectoryError;
use crate::publishing::off_thread;

/// How long nothing may change before what changed is read.
const QUIET: Duration = Duration::from_millis(20);
/// How long to wait for quiet at most.
const BOUND: Duration = Duration::from_millis(200);

/// Reads a directory and follows it: the receiver has the configuration in force, from the first on.
///
/// A new one is published only when the snapshot or the findings changed. It survives files, directories and links
/// that are swapped, removed and made again, the root included; while the root is away, what it said stays in force.
/// It ends when the last receiver is dropped. Must be called within a tokio runtime.
///
/// # Errors
/// When the directory cannot be read or watched.
pub async fn watch(dir: PathBuf, options: Options) -> Result<watch::Receiver<Arc<Config>>, DirectoryError> {
    let (signal, signals) = mpsc::channel(1);
    let path = dir.clone();
    let started = off_thread(move || Follower::start(dir, options, signal)).await;
    let (follower, config) = started.ok_or(DirectoryError::Stopped { path })??;
    let (publisher, receiver) = watch::channel(config);
    tokio::spawn(follow(follower, signals, publisher));
    Ok(receiver)
}

async fn follow(mut follower: Follower, mut signals: mpsc::Receiver<()>, publisher: watch::Sender<Arc<Config>>) {
    let mut settled = true;
    loop {
        if settled {
            tokio::select! {
                () = publisher.closed() => return,
                signal = signals.recv() => if signal.is_none() { return },
            }
        }
        settled = settle(&mut signals).await;
        let reloaded = off_thread(move || {
            let config = follower.reload();
            (follower, config)
        });
        let Some((returned, config)) = reloaded.await else {
            return;
        };
        follower = returned;
        if let Some(config) = config {
            publisher.send_replace(config);
        }
    }
}

/// Waits until signals cease. False when they did not within [`BOUND`]: then there is more to come.
async fn settle(signals: &mut mpsc::Receiver<()>) -> bool {
    let bound = Instant::now() + BOUND;
    loop {
        let quiet = Instant::now() + QUIET;
        match timeout_at(quiet.min(bound), signals.recv()).await {
            Ok(Some(())) => {}
            Ok(None) => return true,
            Err(_) => return quiet <= bound,
        }
    }
}

/// A directory, its contents, and the watches on it.
struct Follower {
    loader: Loader,
    watches: Watches,
}

struct Watches {
    watcher: RecommendedWatcher,
    /// The directory that has the root's own name in it: there a swapped root shows.
    parent: PathBuf,
    watched: HashSet<PathBuf>,
}

impl Follower {
    fn start(dir: PathBuf, options: Options, signal: mpsc::Sender<()>) -> Result<(Self, Arc<Config>), DirectoryError> {
        let failed = |source| DirectoryError::Watch { path: dir.clone(), source };
        let read = |source| DirectoryError::Read { path: dir.clone(), source };
        let root = std::path::absolute(&dir).map_err(read)?;
        let parent = root.parent().unwrap_or(&root);
        let parent = parent.canonicalize().map_err(read)?;
        let name = root.file_name().map(OsStr::to_owned);
        let root_itself = name.map(|name| parent.join(name));
        let beside = parent.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let matters = event.map_or(true, |event| {
                is_change(event.kind)
                    && (event.paths.is_empty()
                        || event
                            .paths
                            .iter()
                            .any(|path| path.parent() != Some(&beside) || Some(path) == root_itself.as_ref()))
            });
            if matters {
                // A full channel holds a signal already.
                let _ = signal.try_send(());
            }
        })
        .map_err(failed)?;
        let mut watches = Watches { watcher, parent, watched: HashSet::new() };
        let mut loader = Loader::new(root, options);
        let (config, error) = watches.during(|enter| loader.load(enter));
        match (config?, error) {
            (_, Some(error)) => Err(failed(error)),
            (config, None) => Ok((Self { loader, watches }, config)),
        }
    }

    fn reload(&mut self) -> Option<Arc<Config>> {
        let (config, error) = self.watches.during(|enter| self.loader.reload(enter));
        if let Some(error) = error {
            tracing::warn!(%error, "changes of some manifests may go unseen");
        }
        config
    }
}

impl Watches {
    /// Watches every directory that `walk` enters, before it is looked into, and no other. Watches are set anew each
    /// time: the kernel ignores what is there already, and one lost to a swap comes back.
    fn during<T>(&mut self, walk: impl FnOnce(&mut dyn FnMut(&Path)) -> T) -> (T, Option<notify::Error>) {
        let mut entered = HashSet::new();
        let mut failure = None;
        let mut enter = |path: &Path| {
            // A directory that is gone makes no events; the one above it does.
            let Ok(path) = path.canonicalize() else { return };
            if entered.contains(&path) {
                return;
            }
            match self.watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    entered.insert(path);
                }
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => failure = Some(error),
            }
        };
        enter(&self.parent.clone());
        let result = walk(&mut enter);
        for path in self.watched.difference(&entered) {
            // It may be gone already, and the watch with it.
            let _ = self.watcher.unwatch(path);
        }
        self.watched = entered;
        (result, failure)
    }
}

/// Whether an event may mean other contents; reading makes events, too.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}
