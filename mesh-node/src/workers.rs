//! The threads that carry connections: one current-thread runtime each, with its own pool and maps,
//! and no work stealing. A connection stays on one thread for its whole life.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    rc::Rc,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use mesh_core::WorkloadUid;
use mesh_transport::hbone::Pool;
use rustix::{
    net::sockopt,
    process::{Resource, getrlimit},
};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::LocalSet,
};

use crate::{
    bpf::{FlowTable, MapAccessError},
    connections::{ConnectionView, Connections},
    node::Shared,
    pods::EnrolledPod,
    proxy::{self, Kind, Unreached},
};

/// Applications' connections that the daemon carries at once, and connections to tunnel ports, each with descriptors to
/// spare; beyond that they wait in the listeners' backlogs. Strangers can fill the latter, and so take nothing from the former.
const MAX_CONNECTIONS: usize = 65_536;
/// Hand-overs that may wait for one worker.
const QUEUE: usize = 1024;
/// How often the bytes of connections that live on are added to the metrics.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after accept() failed for lack of memory or descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A worker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The thread or its runtime.
    #[error("cannot start a worker thread: {0}")]
    Start(#[from] io::Error),
    /// Its maps.
    #[error(transparent)]
    Map(#[from] MapAccessError),
}

/// The running workers.
pub struct Workers {
    queues: Vec<mpsc::Sender<Job>>,
    next: AtomicUsize,
    threads: Vec<JoinHandle<()>>,
    permits: Permits,
    /// Whether listeners are accepted from.
    gate: watch::Sender<bool>,
}

/// What one worker thread has.
pub struct Worker {
    /// What all of the daemon shares.
    pub shared: Arc<Shared>,
    /// This thread's pooled tunnels.
    pub pool: Pool,
    /// This thread's view of the kernel's connection maps.
    pub flows: FlowTable,
    /// This thread's connections.
    pub connections: Connections,
    /// Whom it could not reach of late.
    pub unreached: Unreached,
}

enum Job {
    Accept(Accept),
    Carry(Accepted),
    Do(Arc<dyn Fn(&Worker) + Send + Sync>),
}

/// A listener on its way to the worker that will take its connections.
struct Accept {
    pod: Arc<EnrolledPod>,
    kind: Kind,
    listener: std::net::TcpListener,
    /// Gone when the task has ended.
    alive: Arc<()>,
    /// Turns true when connections may be accepted.
    gate: watch::Receiver<bool>,
}

/// The task that takes the connections of one listener.
pub struct Acceptor(Weak<()>);

impl Acceptor {
    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// A connection on its way to the worker that will carry it.
struct Accepted {
    pod: Arc<EnrolledPod>,
    kind: Kind,
    stream: std::net::TcpStream,
    /// As accept() returned it: a connection that was reset meanwhile has no peer any more.
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
}

impl Workers {
    /// Starts `count` workers.
    ///
    /// # Errors
    /// A thread, its runtime or its maps could not be had.
    pub fn start(count: usize, shared: &Arc<Shared>, maps_dir: &Path) -> Result<Arc<Self>, WorkerError> {
        let channels: Vec<_> = (0..count.max(1)).map(|_| mpsc::channel(QUEUE)).collect();
        let queues: Vec<_> = channels.iter().map(|(sender, _)| sender.clone()).collect();
        let permits = Permits::new();
        let mut threads = Vec::with_capacity(queues.len());
        for (index, (_, jobs)) in channels.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            // Opened here, so that a failure stops the start and not a thread.
            let flows = FlowTable::open(maps_dir)?;
            let dispatcher = Dispatcher {
                queues: queues.iter().map(mpsc::Sender::downgrade).collect(),
                permits: permits.clone(),
                own: index,
            };
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(move || {
                let connections = Connections::new(shared.telemetry.clone());
                let worker = Rc::new(Worker {
                    pool: Pool::new(shared.limits.clone(), shared.identities.trust()),
                    shared,
                    flows,
                    connections,
                    unreached: Unreached::default(),
                });
                runtime.block_on(LocalSet::new().run_until(run(worker, jobs, Rc::new(dispatcher))));
            })?);
        }
        Ok(Arc::new(Self { queues, next: AtomicUsize::new(0), threads, permits, gate: watch::Sender::new(false) }))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.queues.len()
    }

    /// Lets connections be accepted. Until then they wait in the listeners' backlogs.
    pub fn open(&self) {
        self.gate.send_replace(true);
    }

    /// Waits until nothing is carried any more; nothing new may be accepted meanwhile.
    pub async fn drained(&self) {
        let Permits { applications, tunnels, each } = &self.permits;
        // The semaphores are never closed.
        let _all = tokio::join!(applications.acquire_many(*each), tunnels.acquire_many(*each));
    }

    /// Begins to take the connections of one of a pod's listeners.
    pub fn accept(&self, pod: &Arc<EnrolledPod>, kind: Kind, listener: std::net::TcpListener) -> Acceptor {
        let alive = Arc::new(());
        let acceptor = Acceptor(Arc::downgrade(&alive));
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        self.send(index, Job::Accept(Accept { pod: pod.clone(), kind, listener, alive, gate: self.gate.subscribe() }));
        acceptor
    }

    /// Ends the pooled tunnels of a pod that is gone.
    pub fn close_source(&self, uid: &WorkloadUid) {
        let uid = uid.clone();
        self.each(move |worker| worker.pool.close_source(&uid));
    }

    /// Lets each worker do something on its own thread, between what its connections do: it should not take long.
    pub fn each(&self, work: impl Fn(&Worker) + Send + Sync + 'static) {
        let work: Arc<dyn Fn(&Worker) + Send + Sync> = Arc::new(work);
        for index in 0..self.queues.len() {
            self.send(index, Job::Do(work.clone()));
        }
    }

    /// All connections that are carried now, in the order in which they were accepted.
    pub async fn connections(&self) -> Vec<ConnectionView> {
        let (answers, mut answered) = mpsc::channel(self.queues.len());
        self.each(move |worker| {
            let views: Vec<_> = worker.connections.all().iter().map(|connection| connection.view()).collect();
            // There is room for one answer of each.
            let _ = answers.try_send(views);
        });
        let mut all = Vec::new();
        while let Some(views) = answered.recv().await {
            all.extend(views);
        }
        all.sort_unstable_by_key(|view: &ConnectionView| view.id);
        all
    }

    /// How many connections are carried now.
    pub async fn carried(&self) -> usize {
        let (answers, mut answered) = mpsc::channel(self.queues.len());
        self.each(move |worker| {
            // There is room for one answer of each.
            let _ = answers.try_send(worker.connections.count());
        });
        let mut sum = 0;
        while let Some(count) = answered.recv().await {
            sum += count;
        }
        sum
    }

    /// Lets the workers end and waits for them.
    pub fn stop(self: Arc<Self>) {
        let Some(workers) = Arc::into_inner(self) else {
            return;
        };
        drop(workers.queues);
        for thread in workers.threads {
            // A worker that panicked has said so itself.
            let _ = thread.join();
        }
    }

    fn send(&self, index: usize, job: Job) {
        // The control thread may not block: it waits for room in a task of its own.
        if let Err(mpsc::error::TrySendError::Full(job)) = self.queues[index].try_send(job) {
            let queue = self.queues[index].clone();
            tokio::spawn(async move { queue.send(job).await });
        }
    }
}

/// Spreads accepted connections over the workers.
struct Dispatcher {
    queues: Vec<mpsc::WeakSender<Job>>,
    permits: Permits,
    own: usize,
}

/// Who may still be carried.
#[derive(Clone)]
struct Permits {
    applications: Arc<Semaphore>,
    tunnels: Arc<Semaphore>,
    /// Of each, all in all.
    each: u32,
}

impl Permits {
    fn new() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.map(usize::try_from);
        // A connection takes two, its own and that of its other side.
        let each = descriptors.and_then(Result::ok).map_or(MAX_CONNECTIONS, |all| MAX_CONNECTIONS.min(all / 4));
        let all = u32::try_from(each).unwrap_or(u32::MAX);
        Self { applications: Arc::new(Semaphore::new(each)), tunnels: Arc::new(Semaphore::new(each)), each: all }
    }

    fn of(&self, kind: Kind) -> Arc<Semaphore> {
        match kind {
            Kind::Outbound | Kind::Plaintext => self.applications.clone(),
            Kind::Hbone => self.tunnels.clone(),
        }
    }
}

async fn run(worker: Rc<Worker>, mut jobs: mpsc::Receiver<Job>, dispatcher: Rc<Dispatcher>) {
    let pool = worker.pool.clone();
    tokio::task::spawn_local(async move { pool.watch_peers().await });
    let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        let job = tokio::select! {
            job = jobs.recv() => job,
            _ = progress.tick() => {
                worker.connections.tell_progress();
                continue;
            }
        };
        let Some(job) = job else { return };
        match job {
            Job::Accept(listener) => {
                tokio::task::spawn_local(accept(worker.clone(), dispatcher.clone(), listener));
            }
            Job::Carry(accepted) => carry(&worker, accepted),
            Job::Do(work) => work(&worker),
        }
    }
}

/// Accepts until the pod leaves the mesh.
async fn accept(worker: Rc<Worker>, dispatcher: Rc<Dispatcher>, accept: Accept) {
    let Accept { pod, kind, listener, alive: _alive, mut gate } = accept;
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(pod = pod.display_name, %error, "listener not registered");
            return;
        }
    };
    let mut drain = pod.drain.clone();
    let mut turn = dispatcher.own;
    loop {
        let accepting = async {
            // Its sender lives as long as the workers do.
            gate.wait_for(|is_open| *is_open).await.ok()?;
            let permit = dispatcher.permits.of(kind).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let accepted = tokio::select! {
            biased;
            _ = drain.wait_for(|draining| *draining) => return,
            accepted = accepting => accepted,
        };
        let (permit, (stream, peer)) = match accepted {
            Some((permit, Ok(accepted))) => (permit, accepted),
            Some((_, Err(error))) => {
                tracing::warn!(pod = pod.display_name, %error, "accept failed");
                // Somebody shut it down: the enrolment loop opens another.
                if !sockopt::socket_acceptconn(&listener).unwrap_or(false) {
                    return;
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
            None => return,
        };
        turn = (turn + 1) % dispatcher.queues.len();
        if turn == dispatcher.own {
            let accepted = (stream, peer);
            spawn(&worker, pod.clone(), kind, accepted, permit);
            continue;
        }
        let (Some(queue), Ok(stream)) = (dispatcher.queues[turn].upgrade(), stream.into_std()) else {
            return;
        };
        let accepted = Accepted { pod: pod.clone(), kind, stream, peer, permit };
        if queue.send(Job::Carry(accepted)).await.is_err() {
            return;
        }
    }
}

fn carry(worker: &Rc<Worker>, accepted: Accepted) {
    match TcpStream::from_std(accepted.stream) {
        Ok(stream) => spawn(worker, accepted.pod, accepted.kind, (stream, accepted.peer), accepted.permit),
        Err(error) => tracing::warn!(%error, "connection not registered"),
    }
}

fn spawn(
    worker: &Rc<Worker>,
    pod: Arc<EnrolledPod>,
    kind: Kind,
    accepted: (TcpStream, SocketAddr),
    permit: OwnedSemaphorePermit,
) {
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        let (stream, peer) = accepted;
        proxy::carry(worker, pod, kind, stream, peer).await;
        drop(permit);
    });
}
