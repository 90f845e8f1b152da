//! Endpoints that DNS has the addresses of: asked for by the system's resolver, again and again, with the last good answer kept.
//! Nobody but the first request of a name waits for it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use mesh_core::hosts::is_automatic;
use mesh_core::lock::UnpoisonedMutex as _;
use prometheus::IntCounter;
use tokio::{
    net::lookup_host,
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
    time::sleep,
};

/// Names that are followed at once; beyond that they have no addresses.
const MAX_NAMES: usize = 4096;
/// Lookups under way at once: each occupies a thread for as long as the system's resolver takes.
const LOOKUPS: usize = 8;
/// Addresses of one name that are taken.
const MAX_ADDRESSES: usize = 256;
/// Pause after the first failure; it doubles until it is that between answers.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A name's addresses in the order of the answer; none before the first one, and no address where nothing is known.
pub(super) type Answer = Option<Arc<[IpAddr]>>;

/// The names that somebody sends to, over all threads.
pub(crate) struct Names {
    known: Mutex<NameTable>,
    arrived: Notify,
    /// Time from one answer to the next question.
    refresh: Duration,
    failures: IntCounter,
}

#[derive(Default)]
struct NameTable {
    names: HashMap<Arc<str>, Weak<Name>>,
    new: Vec<Arc<Name>>,
}

/// A name, followed for as long as somebody has it.
pub(super) struct Name {
    text: Arc<str>,
    answer: watch::Sender<Answer>,
}

impl Name {
    /// The name itself.
    pub(super) const fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The answers from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<Answer> {
        self.answer.subscribe()
    }
}

impl Names {
    /// Nobody's yet; `failures` counts questions without an answer.
    pub(crate) fn new(refresh: Duration, failures: IntCounter) -> Self {
        Self { known: Mutex::default(), arrived: Notify::new(), refresh, failures }
    }

    /// A name, which is asked for from now on.
    pub(super) fn name(&self, text: &Arc<str>) -> Arc<Name> {
        let mut known = self.known.lock_unpoisoned();
        if let Some(name) = known.names.get(text).and_then(Weak::upgrade) {
            return name;
        }
        known.names.retain(|_, name| name.strong_count() > 0);
        if known.names.len() >= MAX_NAMES {
            tracing::warn!(name = %text, "not asked for: {MAX_NAMES} names are followed already");
            return Arc::new(Name { text: text.clone(), answer: watch::Sender::new(Some(Arc::new([]))) });
        }
        let name = Arc::new(Name { text: text.clone(), answer: watch::Sender::new(None) });
        known.names.insert(text.clone(), Arc::downgrade(&name));
        known.new.push(name.clone());
        self.arrived.notify_one();
        name
    }

    /// What is known of a name, which nobody asks for because of that.
    pub(super) fn answer(&self, text: &Arc<str>) -> Answer {
        let known = self.known.lock_unpoisoned();
        known.names.get(text).and_then(Weak::upgrade).and_then(|name| name.answer.borrow().clone())
    }

    /// Asks, for ever.
    pub(crate) async fn follow(&self) {
        let places = Arc::new(Semaphore::new(LOOKUPS));
        let mut following = JoinSet::new();
        loop {
            tokio::select! {
                () = self.arrived.notified() => {
                    let new = std::mem::take(&mut self.known.lock_unpoisoned().new);
                    for name in new {
                        let (text, name) = (name.text.clone(), Arc::downgrade(&name));
                        following.spawn(follow(name, text, places.clone(), self.refresh, self.failures.clone()));
                    }
                }
                Some(_) = following.join_next() => {}
            }
        }
    }
}

/// Asks for one name until nobody has it.
async fn follow(name: Weak<Name>, text: Arc<str>, places: Arc<Semaphore>, refresh: Duration, failures: IntCounter) {
    let mut pause = FIRST_PAUSE;
    loop {
        let found = match places.acquire().await {
            Ok(_place) => lookup(&text).await,
            Err(_) => return,
        };
        let Some(name) = name.upgrade() else { return };
        let next = match found {
            Ok(addresses) => {
                name.answer.send_if_modified(|known| {
                    let differs = known.as_ref() != Some(&addresses);
                    *known = Some(addresses);
                    differs
                });
                pause = FIRST_PAUSE;
                // Not all at once, whenever they began.
                refresh.mul_f64(0.9 + 0.2 * fastrand::f64())
            }
            Err(error) => {
                failures.inc();
                tracing::warn!(name = %text, %error, "no addresses by DNS; those that were known stay in force");
                name.answer.send_if_modified(|known| known.is_none() && known.replace(Arc::new([])).is_none());
                let next = pause.min(refresh);
                pause = pause.saturating_mul(2);
                next
            }
        };
        drop(name);
        sleep(next).await;
    }
}

/// The addresses of a name, in the order of the system's preference (RFC 6724). What would lead back to this machine is left out: DNS
/// does not say what runs here. So are the mesh's own addresses of hosts, which would lead back to a waypoint.
async fn lookup(text: &str) -> std::io::Result<Arc<[IpAddr]>> {
    let found = lookup_host((text, 0)).await?;
    let of_others = |ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() && !is_automatic(*ip);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|address| address.ip().to_canonical()).filter(of_others).take(MAX_ADDRESSES) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    match addresses.is_empty() {
        true => Err(std::io::Error::other("the answer has no address of another machine")),
        false => Ok(addresses.into()),
    }
}
