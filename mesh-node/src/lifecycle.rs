//! How a daemon comes to be in charge, and how it ends: handed over, or stopped.

use std::{collections::HashSet, io, pin::Pin, sync::Arc, time::Duration};

use mesh_core::SpiffeId;
use mesh_transport::Identities;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    handover::{HandoverOutcome, Inheritance, Lifeline, Released, Succession},
    node::Shared,
    nri::{Nri, NriTask},
    pods::{Enrolment, Order},
    telemetry::{Cut, CutReason},
    workers::{Worker, Workers},
};

/// How long a daemon that is stopped waits to be told that the mesh is uninstalled, where it is not known that it is not: hooks that
/// stayed then would refuse their pods' connections for good.
const NEWS: Duration = Duration::from_secs(3);
/// How long connections that are cut may take to tell of their end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What established connections need; it ends with nothing but an error.
pub type Upkeep = Pin<Box<dyn Future<Output = ()>>>;
/// What a daemon does that takes new connections, until another has taken over.
pub type Service = Pin<Box<dyn Future<Output = anyhow::Result<Released>>>>;

/// How long established connections may go on.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After a successor has taken over.
    pub handed_over: Duration,
    /// After a signal, without one.
    pub stopped: Duration,
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// The runtime's.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Joins the node's pods and gets their certificates, and then takes over from the daemon that runs, if there is one. `kept` are
/// the listeners of one that crashed.
///
/// # Errors
/// The daemon that runs is gone meanwhile or hangs, or there is no certificate at all while it may have some.
pub async fn take_over(
    succession: Option<Succession>,
    kept: Inheritance,
    enrolment: &mut Enrolment,
    shared: &Arc<Shared>,
    nri: Nri,
) -> anyhow::Result<(Vec<Lifeline>, NriTask)> {
    let config = shared.config();
    let Some(succession) = succession else {
        enrolment.join_first(&config, kept);
        enrolment.take_charge()?;
        return Ok((Vec::new(), nri.start().await));
    };
    let inheritance = succession.borrow().await?;
    let lent = inheritance.count();
    tracing::info!(listeners = lent, "listeners of the daemon before are here");
    enrolment.join_first(&config, inheritance);
    if lent > 0 && enrolment.identities().is_empty() {
        anyhow::bail!(
            "handover refused, and the daemon that runs goes on: it has enrolled pods, of which this configuration knows none; check \
             --node and the source of the configuration"
        );
    }
    obtain(&shared.identities, enrolment.identities()).await?;
    // Asked beside the daemon before, which enrols nobody by now.
    let nri = nri.start().await;
    let lifelines = succession.commit(&shared.handover).await?;
    enrolment.take_charge()?;
    shared.telemetry.metrics.succession.handover(HandoverOutcome::TakenOver);
    for lifeline in lifelines.clone() {
        tokio::spawn(lifeline.follow(shared.handover.clone()));
    }
    Ok((lifelines, nri))
}

/// Waits for certificates, as long as a connection would.
async fn obtain(identities: &Identities, wanted: HashSet<SpiffeId>) -> anyhow::Result<()> {
    let mut fetches = JoinSet::new();
    for identity in wanted {
        let identities = identities.clone();
        fetches.spawn(async move { identities.fetch(&identity).await.map(drop) });
    }
    let outcomes = fetches.join_all().await;
    let failed = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    match failed.clone().next() {
        Some(error) if failed.count() == outcomes.len() => {
            anyhow::bail!(
                "handover refused, and the daemon that runs goes on: no certificate could be obtained ({error}); check --ca or \
                 --ca-address"
            )
        }
        _ => Ok(()),
    }
}

/// Serves until another daemon has taken over, or until a signal; then lets established connections end. `stays` resolves once it is
/// known that the mesh is not being uninstalled; it is asked after a signal.
///
/// # Errors
/// The service's.
pub async fn live(
    mut service: Service,
    mut upkeep: Upkeep,
    mut signals: Signals,
    orders: mpsc::Sender<Order>,
    workers: Arc<Workers>,
    patience: Patience,
    stays: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let released = tokio::select! {
        released = &mut service => Some(released?),
        () = &mut upkeep => anyhow::bail!("the configuration's watcher ended"),
        () = signals.next() => None,
    };
    let kept = match released {
        Some(released) => {
            drop(service);
            tracing::info!(limit = ?patience.handed_over, "handed over: established connections go on here");
            // The first signal says what is known.
            drain(&mut upkeep, &mut signals, 2, &workers, patience.handed_over).await;
            Some(released)
        }
        None => {
            tracing::info!(limit = ?patience.stopped, "stopping: hooks stay in force; new connections wait, and are refused at the end");
            orders.send(Order::Stop).await?;
            let stopped = async {
                // Who may be uninstalled is told by a watch, perhaps after the signal.
                let known = timeout(NEWS, stays);
                let drained = drain(&mut upkeep, &mut signals, 1, &workers, patience.stopped);
                // What is not known by then stays as it is.
                let _ = tokio::join!(drained, known);
            };
            let released = tokio::select! {
                released = &mut service => Some(released?),
                () = stopped => None,
            };
            drop(service);
            if released.is_some() {
                tracing::info!(limit = ?patience.handed_over, "handed over: established connections go on here");
                drain(&mut upkeep, &mut signals, 1, &workers, patience.handed_over).await;
            }
            released
        }
    };
    drop(upkeep);
    workers.stop();
    drop(kept);
    tracing::info!("mesh-node ended");
    Ok(())
}

/// Waits until nothing is carried any more, for `limit`, or until that many signals; cuts what is left.
async fn drain(upkeep: &mut Upkeep, signals: &mut Signals, count: u32, workers: &Arc<Workers>, limit: Duration) {
    let asked = async {
        for _ in 0..count {
            signals.next().await;
        }
    };
    let why = tokio::select! {
        () = workers.drained() => return tracing::info!("every connection has ended"),
        () = sleep(limit) => "the limit is reached",
        () = asked => "asked to end at once",
        () = upkeep => "the configuration's watcher ended",
    };
    tracing::warn!(connections = workers.carried().await, why, "established connections are cut");
    workers.each(cut_all);
    // What does not end by itself is reset with its thread.
    let _ = timeout(LAST_WORDS, workers.drained()).await;
}

fn cut_all(worker: &Worker) {
    for connection in worker.connections.all() {
        let detail = "the daemon ends".to_owned();
        connection.cut(Cut { reason: CutReason::DaemonEnding, detail });
    }
}
