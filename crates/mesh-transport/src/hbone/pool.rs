//! Authenticated connections, kept for the next tunnel with the same source and destination.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use mesh_core::{SpiffeId, WorkloadUid};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::hbone::client::{Driver, Established, Link, OpenError, Target, dialled, establish};
use crate::hbone::connect_error::ConnectError;
use crate::hbone::lane::{Berth, Lane};
use crate::hbone::request::TunnelRequest;
use crate::hbone::tunnel::{Place, Tunnel};
use crate::limits::Limits;
use crate::session::{PeerChain, Session, end_abandoned};
use crate::tls::{Carriers, TlsIdentity};
use crate::trust::TrustFeed;

/// What makes two connections interchangeable. The source's uid is part of it, so that nothing outlives a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The pod that connects.
    pub source: WorkloadUid,
    /// Who the pod is.
    pub identity: SpiffeId,
    /// The tunnel port at the far side.
    pub peer: SocketAddr,
    /// Who has to be there.
    pub expected: SpiffeId,
}

/// The connections of one thread. Clones share them.
#[derive(Clone)]
pub struct Pool {
    lanes: Rc<RefCell<HashMap<PoolKey, Rc<Lane>>>>,
    limits: Rc<Limits>,
    trust: TrustFeed,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

/// A connection that is ready to be asked for a tunnel.
enum Ready {
    Direct(Box<Session>, Place),
    H2(Rc<Link>),
}

impl Pool {
    /// An empty pool. [`Pool::watch_peers`] ends connections to peers that `trust` accepts no more.
    #[must_use]
    pub fn new(limits: Limits, trust: TrustFeed) -> Self {
        Self { lanes: Rc::default(), limits: Rc::new(limits), trust }
    }

    /// Judges the peers of all connections anew whenever the trust bundle changes, and ends the connections of this thread, those that
    /// it serves too, whose peers have gone without a word. Runs until it is dropped.
    pub async fn watch_peers(&self) {
        // As long as HTTP/2 waits for a ping's answer.
        let limit = self.limits.ping_interval + self.limits.ping_timeout;
        tokio::join!(self.follow_trust(), end_abandoned(limit));
    }

    async fn follow_trust(&self) {
        let mut trust = self.trust.clone();
        // Without a sender the bundle never changes.
        while trust.changed().await.is_ok() {
            let judge = trust.borrow_and_update().clone();
            let lanes: Vec<_> = self.lanes.borrow().values().cloned().collect();
            for lane in lanes {
                lane.rejudge(&judge).await;
            }
        }
    }

    /// Fails when the peer, which was accepted by an earlier trust bundle, would not be by the one in force.
    pub(super) fn still_trusts(&self, target: &Target<'_>, chain: Option<&Arc<PeerChain>>) -> Result<(), ConnectError> {
        let judge = self.trust.borrow().clone();
        if Arc::ptr_eq(&judge, target.tls.peers()) {
            return Ok(());
        }
        chain.map_or(Ok(()), |chain| chain.verify(&judge)).map_err(|error| ConnectError::Tls {
            peer: target.peer,
            expected: target.expected.clone(),
            source: Arc::new(error.into_tls()),
        })
    }

    /// Opens a tunnel, over a connection that is there or one that `dial` makes to `key.peer`.
    ///
    /// Callers with the same key share a dial for HTTP/2; a direct tunnel has its connection to itself, and no more
    /// than a bound are open at once ([`Limits::direct_per_destination`]).
    /// A pooled connection that turns out to be dead is replaced, and a new one whose peer goes away before it has looked
    /// at the request once more: its daemon may just have been replaced.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        &self,
        key: PoolKey,
        tls: &TlsIdentity,
        request: TunnelRequest,
        dial: impl AsyncFn() -> io::Result<TcpStream>,
    ) -> Result<Tunnel, ConnectError> {
        let lane = self.lanes.borrow_mut().entry(key.clone()).or_default().clone();
        let berth = || Berth::new(self.clone(), key.clone(), lane.clone(), tls.generation);
        // Keeps the lane while its tunnel is being made.
        let _stay = berth();
        let target = Target { peer: key.peer, expected: &key.expected, tls };
        if let Some(ready) = self.pooled(&lane, tls) {
            match self.open(ready, berth(), &target, &request).await {
                Err(OpenError::Unprocessed(_)) => {}
                Err(OpenError::Settled(error)) => return Err(error),
                Ok(tunnel) => return Ok(tunnel),
            }
        }
        let ready = self.fresh(&lane, &key, &target, &dial).await?;
        match self.open(ready, berth(), &target, &request).await {
            Err(OpenError::Unprocessed(_)) => {}
            Err(OpenError::Settled(error)) => return Err(error),
            Ok(tunnel) => return Ok(tunnel),
        }
        let ready = self.fresh(&lane, &key, &target, &dial).await?;
        self.open(ready, berth(), &target, &request).await.map_err(|error| match error {
            OpenError::Settled(error) | OpenError::Unprocessed(error) => error,
        })
    }

    /// Ends all connections of a pod that has left; its tunnels are reset.
    pub fn close_source(&self, source: &WorkloadUid) {
        // Dropped after the map's borrow, as a connection's end may look at the map.
        let gone: Vec<_> = self.lanes.borrow_mut().extract_if(|key, _| key.source == *source).collect();
        gone.iter().for_each(|(_, lane)| lane.close());
    }

    /// How many connections there are, without those that a direct tunnel has to itself.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lanes.borrow().values().map(|lane| lane.connections()).sum()
    }

    pub(super) fn limits(&self) -> Rc<Limits> {
        self.limits.clone()
    }

    /// Drops a lane that holds nothing and that nobody else looks at.
    pub(super) fn prune(&self, key: &PoolKey, lane: &Rc<Lane>) {
        let mut lanes = self.lanes.borrow_mut();
        let current = lanes.get(key).is_some_and(|current| Rc::ptr_eq(current, lane));
        // One reference is the map's, one the caller's.
        if current && lane.connections() == 0 && Rc::strong_count(lane) == 2 {
            lanes.remove(key);
        }
    }

    fn pooled(&self, lane: &Lane, tls: &TlsIdentity) -> Option<Ready> {
        if let Some(session) = lane.take_parked(tls) {
            return Some(Ready::Direct(session, lane.occupy()));
        }
        if lane.may_be_direct(&self.limits) {
            return None;
        }
        lane.pick(tls, &self.limits).map(Ready::H2)
    }

    async fn open(
        &self,
        ready: Ready,
        berth: Berth,
        target: &Target<'_>,
        request: &TunnelRequest,
    ) -> Result<Tunnel, OpenError> {
        match ready {
            Ready::Direct(session, place) => berth.open(session, place, target, request, &self.limits).await,
            Ready::H2(link) => {
                let opened = link.open(request, &self.limits).await;
                if matches!(opened, Err(OpenError::Unprocessed(_))) {
                    link.retired.set(true);
                }
                opened
            }
        }
    }

    /// A connection that was just made: by this caller, or over HTTP/2 by one that it waited for.
    async fn fresh(
        &self,
        lane: &Rc<Lane>,
        key: &PoolKey,
        target: &Target<'_>,
        dial: &impl AsyncFn() -> io::Result<TcpStream>,
    ) -> Result<Ready, ConnectError> {
        let failures = lane.failures.get();
        let mut place = lane.place(&self.limits);
        let one = if place.is_some() { None } else { Some(lane.dialling.lock().await) };
        if lane.failures.get() != failures
            && let Some(error) = lane.last_failure.borrow().clone()
        {
            return Err(error);
        }
        if one.is_some()
            && let Some(ready) = self.pooled(lane, target.tls)
        {
            return Ok(ready);
        }
        // Of those who waited for a dial that made a direct connection, some may dial for themselves at once.
        place = place.or_else(|| lane.place(&self.limits));
        let one = one.filter(|_| place.is_none());
        let is_full = lane.is_direct.get() && place.is_none();
        let offered = if is_full { Carriers::H2 } else { target.tls.carriers };
        let established = match dialled(key.peer, &self.limits, dial).await {
            Ok(stream) => establish(target, offered, &self.limits, stream).await,
            Err(error) => Err(error),
        };
        if lane.is_closed.get() {
            return Err(ConnectError::SourceGone);
        }
        let established = established.inspect_err(|error| {
            if one.is_some() {
                lane.failures.set(failures.wrapping_add(1));
                lane.last_failure.replace(Some(error.clone()));
            }
        })?;
        if !is_full {
            lane.is_direct.set(matches!(established, Established::Direct(_)));
        }
        match established {
            Established::Direct(session) => Ok(Ready::Direct(session, place.unwrap_or_else(|| lane.occupy()))),
            Established::H2(link, driver) => {
                // Of those who dialled for direct tunnels and got HTTP/2 instead, the first one's connection does for all.
                if place.is_some()
                    && let Some(shared) = lane.pick(target.tls, &self.limits)
                {
                    return Ok(Ready::H2(shared));
                }
                // No await in between: a change of trust finds it in the lane, or is found here.
                self.still_trusts(target, link.chain.as_ref())?;
                lane.links.borrow_mut().push(link.clone());
                self.spawn(key.clone(), Rc::downgrade(lane), link.clone(), driver);
                Ok(Ready::H2(link))
            }
        }
    }

    /// Drives an HTTP/2 connection and forgets it when it has ended.
    fn spawn(&self, key: PoolKey, lane: Weak<Lane>, link: Rc<Link>, driver: Driver) {
        let pool = self.clone();
        spawn_local(async move {
            driver.await;
            link.retired.set(true);
            if let Some(lane) = lane.upgrade() {
                lane.links.borrow_mut().retain(|other| !Rc::ptr_eq(other, &link));
                pool.prune(&key, &lane);
            }
        });
    }
}
