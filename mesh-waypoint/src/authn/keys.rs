//! The keys of issuers, over all threads: fetched beforehand, refreshed, and fetched anew when a token names one that is not known.

use std::{
    collections::{HashMap, HashSet},
    error::Error as _,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use bytes::Bytes;
use mesh_core::lock::UnpoisonedMutex as _;
use mesh_core::policy::{KeySource, TokenRule};
use mesh_jwt::KeySet;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::fetch::{FetchError, key_set};
use crate::telemetry::{KeyFetch, Telemetry};

/// Pauses between tries that failed.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often tokens may have keys fetched, whatever keys they name; and how many times at once.
const ASK_EVERY: Duration = Duration::from_secs(10);
const ASK_BURST: u32 = 4;
/// How long a request waits for keys that are being fetched.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where keys are, and how long it may take to fetch them.
type Address = (KeySource, Option<Duration>);

/// The keys of all issuers that rules name.
pub(crate) struct KeyStore {
    sources: Mutex<HashMap<Address, Arc<Source>>>,
    refresh: Duration,
    telemetry: Arc<Telemetry>,
}

/// One issuer's keys.
pub(crate) struct Source {
    address: Address,
    known: watch::Sender<CachedKeys>,
    /// Somebody wants newer keys, or nobody wants any more.
    asked: Arc<Notify>,
    /// When the last of the fetches that were asked for is paid for.
    paid: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct CachedKeys {
    /// The last good ones.
    keys: Option<Arc<KeySet>>,
    text: Bytes,
    /// Fetches that ended, well or not.
    tries: u64,
}

impl KeyStore {
    /// Without any. Keys are fetched anew after `refresh`.
    pub(crate) fn new(refresh: Duration, telemetry: Arc<Telemetry>) -> Self {
        Self { sources: Mutex::default(), refresh, telemetry }
    }

    /// The keys for a rule, which are fetched from now on.
    pub(crate) fn source(&self, rule: &TokenRule) -> Arc<Source> {
        let address = (rule.keys.clone(), rule.timeout);
        let mut sources = self.sources.lock_unpoisoned();
        if let Some(source) = sources.get(&address) {
            return source.clone();
        }
        let source = Arc::new(Source {
            address: address.clone(),
            known: watch::Sender::default(),
            asked: Arc::default(),
            paid: Mutex::default(),
        });
        match &address.0 {
            KeySource::Inline(text) => {
                source.take(KeySet::parse(text.as_bytes()).map_err(FetchError::from), Bytes::new())
            }
            KeySource::Url(_) | KeySource::Issuer(_) => {
                let (asked, weak) = (source.asked.clone(), Arc::downgrade(&source));
                tokio::spawn(follow(weak, asked, self.refresh, self.telemetry.clone()));
            }
        }
        sources.insert(address, source.clone());
        source
    }

    /// Fetches what these rules need, and forgets the rest.
    pub(crate) fn keep<'a>(&self, rules: impl Iterator<Item = &'a TokenRule>) {
        let wanted: HashSet<Address> = rules
            .map(|rule| {
                self.source(rule);
                (rule.keys.clone(), rule.timeout)
            })
            .collect();
        self.sources.lock_unpoisoned().retain(|address, _| wanted.contains(address));
    }
}

impl Source {
    /// The keys as they are now.
    pub(crate) fn current(&self) -> Option<Arc<KeySet>> {
        self.known.borrow().keys.clone()
    }

    /// The keys, once they have been asked for; none where there are none to be had.
    pub(crate) async fn keys(&self) -> Option<Arc<KeySet>> {
        match self.current() {
            Some(keys) => Some(keys),
            None => self.wait(0).await,
        }
    }

    /// Newer keys than those, fetched now, if there are any. Who may name any key does not make us ask as often.
    pub(crate) async fn newer_than(&self, old: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        let is_newer = |keys: &Arc<KeySet>| !Arc::ptr_eq(keys, old);
        let (now, tries) = {
            let known = self.known.borrow();
            (known.keys.clone(), known.tries)
        };
        if now.as_ref().is_some_and(is_newer) || matches!(self.address.0, KeySource::Inline(_)) || !self.may_ask() {
            return now.filter(is_newer);
        }
        self.asked.notify_one();
        self.wait(tries).await.filter(is_newer)
    }

    /// The keys after more tries than that.
    async fn wait(&self, tries: u64) -> Option<Arc<KeySet>> {
        let mut known = self.known.subscribe();
        let tried = timeout(PATIENCE, known.wait_for(|known| known.tries > tries)).await;
        tried.ok()?.ok()?.keys.clone()
    }

    /// Whether a fetch may be asked for: so many at once, and then one in so much time.
    fn may_ask(&self) -> bool {
        let (now, mut paid) = (Instant::now(), self.paid.lock_unpoisoned());
        let from = paid.map_or(now, |paid| paid.max(now));
        if from - now > ASK_EVERY * (ASK_BURST - 1) {
            return false;
        }
        *paid = Some(from + ASK_EVERY);
        true
    }

    /// Takes what a fetch brought; the last good keys stay where it brought none, and the same keys stay the same.
    fn take(&self, fetched: Result<KeySet, FetchError>, text: Bytes) {
        self.known.send_modify(|known| {
            known.tries += 1;
            if let Ok(keys) = fetched
                && (known.keys.is_none() || known.text != text)
            {
                (known.keys, known.text) = (Some(Arc::new(keys)), text);
            }
        });
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.asked.notify_one();
    }
}

/// Fetches keys for as long as somebody wants them.
async fn follow(source: Weak<Source>, asked: Arc<Notify>, refresh: Duration, telemetry: Arc<Telemetry>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Some((address, limit)) = source.upgrade().map(|source| source.address.clone()) else { return };
        let fetched = key_set(&address, limit).await;
        let Some(source) = source.upgrade() else { return };
        let until_next = match &fetched {
            Ok((_, keys)) => {
                tracing::info!(from = ?address, keys = keys.len(), "keys fetched");
                telemetry.own.key_fetch(KeyFetch::Fetched);
                pause = FIRST_PAUSE;
                refresh
            }
            Err(error) => {
                let because = error.source().map(ToString::to_string);
                tracing::warn!(from = ?address, %error, because, "keys not fetched: the last ones stay");
                telemetry.own.key_fetch(KeyFetch::Failed);
                let until_next = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                until_next
            }
        };
        match fetched {
            Ok((text, keys)) => source.take(Ok(keys), text),
            Err(error) => source.take(Err(error), Bytes::new()),
        }
        drop(source);
        tokio::select! {
            () = sleep(until_next) => {}
            () = asked.notified() => {}
        }
    }
}
