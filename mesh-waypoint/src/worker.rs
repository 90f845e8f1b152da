//! The threads that carry requests: one current-thread runtime each, with pools of its own, and no work stealing.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use mesh_config::Config;
use mesh_core::{Snapshot, telemetry::EffectiveTelemetry};
use mesh_transport::hbone::Pool;
use tokio::{
    net::TcpStream,
    runtime::{Builder, LocalOptions},
    sync::{mpsc, watch},
    task::spawn_local,
    time::{Duration, MissedTickBehavior, interval},
};

use crate::{
    authn::Memory,
    counts::{RuleTally, ThreadCounts},
    freed_elsewhere::FreedElsewhere,
    inbound,
    limits::InForce,
    listeners::{self, Listeners},
    per_service::PerService,
    serve::{ConnectionGuard, Shared},
    telemetry::SeriesCache,
    upstream::{LOOK, Upstreams},
};

/// Where a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// At the port for tunnels.
    Tunnel,
    /// At a port of the gateway.
    Gateway(u16),
}

/// A connection on its way to a thread.
type Job = (std::net::TcpStream, SocketAddr, Door, ConnectionGuard);

/// Connections that may wait for one thread.
const QUEUE: usize = 1024;
/// How often connections that nobody has used for long are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// What one thread has.
pub(crate) struct Worker {
    /// What all threads share.
    pub(crate) shared: Arc<Shared>,
    /// This thread's tunnels to endpoints.
    pub(crate) pool: Pool,
    /// This thread's connections to endpoints, in tunnels or plain.
    pub(crate) upstreams: Upstreams,
    /// Copies of requests under way.
    pub(crate) mirrors: Cell<usize>,
    /// Clients' connections.
    pub(crate) clients: Cell<usize>,
    /// Octets of responses by HTTP/2 that clients have yet to take, and what may wait behind them on endpoints' connections.
    pub(crate) owed: Cell<u64>,
    /// Questions to authorizers under way.
    pub(crate) questions: Cell<usize>,
    /// The series that this thread counts with.
    pub(crate) series: SeriesCache,
    /// Tokens that were verified on this thread.
    pub(crate) tokens: Memory,
    /// The requests of this thread.
    pub(crate) counts: Arc<ThreadCounts>,
    /// The rules that it has used.
    pub(crate) rules: RuleTally,
    /// The line of a request, while it is written.
    pub(crate) line: RefCell<String>,
    /// What is told of requests and connections.
    pub(crate) told: PerService<Rc<EffectiveTelemetry>>,
    /// How many requests may pass.
    pub(crate) limits: PerService<InForce>,
    view: RefCell<View>,
    listeners: RefCell<ListenersView>,
}

/// The cluster as a thread sees it.
#[derive(Clone)]
pub(crate) struct NumberedSnapshot {
    pub(crate) snapshot: FreedElsewhere<Snapshot>,
    /// No other state of the cluster has had it on this thread.
    pub(crate) number: u64,
}

/// The configuration as this thread has last seen it.
struct View {
    config: watch::Receiver<Arc<Config>>,
    seen: NumberedSnapshot,
}

/// The gateway's listeners as this thread has last seen them.
struct ListenersView {
    now: watch::Receiver<Arc<Listeners>>,
    seen: Arc<Listeners>,
}

impl Worker {
    fn new(shared: Arc<Shared>) -> Self {
        let mut config = shared.config.clone();
        let snapshot = FreedElsewhere::new(config.borrow_and_update().snapshot.clone());
        let view = RefCell::new(View { config, seen: NumberedSnapshot { snapshot, number: 1 } });
        let pool = Pool::new(shared.limits.clone(), shared.identities.trust());
        let mut now = shared.listeners.subscribe();
        let seen = now.borrow_and_update().clone();
        let (number, counts) = shared.threads.join();
        Self {
            pool,
            upstreams: Upstreams::default(),
            series: SeriesCache::default(),
            line: RefCell::default(),
            told: PerService::default(),
            limits: PerService::default(),
            counts,
            rules: RuleTally::new(number),
            mirrors: Cell::new(0),
            clients: Cell::new(0),
            owed: Cell::new(0),
            tokens: Memory::default(),
            questions: Cell::new(0),
            shared,
            view,
            listeners: RefCell::new(ListenersView { now, seen }),
        }
    }

    /// The gateway's listeners as they are now.
    pub(crate) fn listeners(&self) -> Arc<Listeners> {
        let mut view = self.listeners.borrow_mut();
        if view.now.has_changed().unwrap_or(false) {
            let seen = view.now.borrow_and_update().clone();
            view.seen = seen;
        }
        view.seen.clone()
    }

    /// The cluster as it is now.
    pub(crate) fn snapshot(&self) -> FreedElsewhere<Snapshot> {
        self.numbered_snapshot().snapshot
    }

    /// The cluster as it is now, with a number for what is remembered of it.
    pub(crate) fn numbered_snapshot(&self) -> NumberedSnapshot {
        let mut view = self.view.borrow_mut();
        // A number is compared; the lock is taken for changes alone. What is no longer followed does not change.
        if view.config.has_changed().unwrap_or(false) {
            let snapshot = FreedElsewhere::new(view.config.borrow_and_update().snapshot.clone());
            view.seen = NumberedSnapshot { snapshot, number: view.seen.number + 1 };
        }
        view.seen.clone()
    }
}

/// The running threads.
pub(crate) struct Workers {
    queues: Vec<mpsc::Sender<Job>>,
    next: AtomicUsize,
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// A thread, or its runtime, cannot be had.
    pub(crate) fn start(shared: &Arc<Shared>, count: usize) -> io::Result<Self> {
        let stop = watch::Sender::new(false);
        let (mut queues, mut threads) = (Vec::new(), Vec::new());
        for index in 0..count {
            let (queue, jobs) = mpsc::channel(QUEUE);
            let (shared, stopped) = (shared.clone(), stop.subscribe());
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            let (begun, begins) = std::sync::mpsc::sync_channel(1);
            threads.push(thread.spawn(move || {
                // A runtime of tasks that stay on their thread is made there.
                match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                    Ok(runtime) => {
                        // Whoever waits is there as long as nothing was said.
                        let _ = begun.send(Ok(()));
                        runtime.block_on(run(Rc::new(Worker::new(shared)), jobs, stopped));
                    }
                    Err(error) => drop(begun.send(Err(error))),
                }
            })?);
            begins.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended before it began")))?;
            queues.push(queue);
        }
        Ok(Self { queues, next: AtomicUsize::new(0), threads, stop })
    }

    /// Gives a connection to the next thread. A tunnel connection carries many streams, and nodes make few of them: by turns
    /// they are spread evenly. False: too many wait for that thread.
    #[must_use]
    pub(crate) fn carry(
        &self,
        stream: std::net::TcpStream,
        (peer, door): (SocketAddr, Door),
        counted: ConnectionGuard,
    ) -> bool {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        self.queues[turn].try_send((stream, peer, door, counted)).is_ok()
    }

    /// Ends what still runs and waits for the threads.
    pub(crate) fn stop(self) {
        self.stop.send_replace(true);
        drop(self.queues);
        for thread in self.threads {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

async fn run(worker: Rc<Worker>, mut jobs: mpsc::Receiver<Job>, mut stopped: watch::Receiver<bool>) {
    let pool = worker.pool.clone();
    spawn_local(async move { pool.watch_peers().await });
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            job = jobs.recv() => {
                let Some((stream, peer, door, counted)) = job else { return };
                match (TcpStream::from_std(stream), door) {
                    (Ok(stream), Door::Tunnel) => {
                        spawn_local(inbound::serve(worker.clone(), stream, peer, counted));
                    }
                    (Ok(stream), Door::Gateway(port)) => {
                        spawn_local(listeners::serve(worker.clone(), stream, (peer, port), counted));
                    }
                    (Err(error), _) => tracing::warn!(%peer, %error, "connection not registered"),
                }
            }
            _ = look.tick() => worker.upstreams.look(&worker),
            _ = sweep.tick() => worker.upstreams.sweep(),
            // A sender that is gone stops as well.
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}
