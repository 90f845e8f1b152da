//! Authenticated connections, kept for the next tunnel with the same source and destination.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use mesh_core::{SpiffeId, WorkloadUid};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::spawn_local;

use crate::hbone::client::{ConnectError, Link, OpenError, Target, dialled};
use crate::hbone::request::TunnelRequest;
use crate::hbone::tunnel::Tunnel;
use crate::limits::Limits;
use crate::tls::TlsIdentity;

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
}

/// Everything for one key.
#[derive(Default)]
struct Lane {
    links: RefCell<Vec<Rc<Link>>>,
    /// One dial at a time; those who wait for it share its result.
    dialling: Mutex<()>,
    failures: Cell<u64>,
    last_failure: RefCell<Option<ConnectError>>,
    closed: Cell<bool>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { lanes: Rc::default(), limits: Rc::new(limits) }
    }

    /// Opens a tunnel, over a connection that is there or one that `dial` makes to `key.peer`.
    ///
    /// Callers with the same key share a dial. A pooled connection that turns out to be dead is replaced once.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        &self,
        key: PoolKey,
        tls: &TlsIdentity,
        request: TunnelRequest,
        dial: impl AsyncFnOnce() -> io::Result<TcpStream>,
    ) -> Result<Tunnel, ConnectError> {
        let lane = self.lanes.borrow_mut().entry(key.clone()).or_default().clone();
        let result = self.connect_in(&lane, &key, tls, &request, dial).await;
        self.prune(&key, &lane);
        result
    }

    /// Ends all connections of a pod that has left; tunnels over them are reset.
    pub fn close_source(&self, source: &WorkloadUid) {
        self.lanes.borrow_mut().retain(|key, lane| {
            let stays = key.source != *source;
            if !stays {
                lane.closed.set(true);
                lane.links.borrow().iter().for_each(|link| link.cut());
            }
            stays
        });
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lanes.borrow().values().map(|lane| lane.links.borrow().len()).sum()
    }

    async fn connect_in(
        &self,
        lane: &Rc<Lane>,
        key: &PoolKey,
        tls: &TlsIdentity,
        request: &TunnelRequest,
        dial: impl AsyncFnOnce() -> io::Result<TcpStream>,
    ) -> Result<Tunnel, ConnectError> {
        if let Some(link) = lane.pick(tls, &self.limits) {
            match link.open(request, &self.limits).await {
                Ok(tunnel) => return Ok(tunnel),
                Err(OpenError::Settled(error)) => return Err(error),
                Err(OpenError::Unprocessed(_)) => link.retired.set(true),
            }
        }
        let link = self.link(lane, key, tls, dial).await?;
        match link.open(request, &self.limits).await {
            Ok(tunnel) => Ok(tunnel),
            Err(OpenError::Settled(error) | OpenError::Unprocessed(error)) => Err(error),
        }
    }

    /// A connection with room: one that another caller made meanwhile, or a new one.
    async fn link(
        &self,
        lane: &Rc<Lane>,
        key: &PoolKey,
        tls: &TlsIdentity,
        dial: impl AsyncFnOnce() -> io::Result<TcpStream>,
    ) -> Result<Rc<Link>, ConnectError> {
        let failures = lane.failures.get();
        let _one = lane.dialling.lock().await;
        if lane.closed.get() {
            return Err(ConnectError::SourceGone);
        }
        if lane.failures.get() != failures
            && let Some(error) = lane.last_failure.borrow().clone()
        {
            return Err(error);
        }
        if let Some(link) = lane.pick(tls, &self.limits) {
            return Ok(link);
        }
        let target = Target { peer: key.peer, expected: &key.expected, tls };
        let established = match dialled(key.peer, &self.limits, dial).await {
            Ok(stream) => Link::establish(&target, &self.limits, stream).await,
            Err(error) => Err(error),
        };
        let (link, driver) = established.inspect_err(|error| {
            lane.failures.set(failures.wrapping_add(1));
            lane.last_failure.replace(Some(error.clone()));
        })?;
        if lane.closed.get() {
            return Err(ConnectError::SourceGone);
        }
        lane.links.borrow_mut().push(link.clone());
        self.spawn(key.clone(), Rc::downgrade(lane), link.clone(), driver);
        Ok(link)
    }

    /// Drives a connection and forgets it when it has ended.
    fn spawn(&self, key: PoolKey, lane: Weak<Lane>, link: Rc<Link>, driver: impl Future<Output = ()> + 'static) {
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

    /// Drops a lane that holds nothing and that nobody else looks at.
    fn prune(&self, key: &PoolKey, lane: &Rc<Lane>) {
        let mut lanes = self.lanes.borrow_mut();
        let current = lanes.get(key).is_some_and(|current| Rc::ptr_eq(current, lane));
        // One reference is the map's, one the caller's.
        if current && lane.links.borrow().is_empty() && Rc::strong_count(lane) == 2 {
            lanes.remove(key);
        }
    }
}

impl Lane {
    /// The connection with the most tunnels that still has room, so that the others may fall idle.
    fn pick(&self, tls: &TlsIdentity, limits: &Limits) -> Option<Rc<Link>> {
        let links = self.links.borrow();
        let usable = links.iter().filter(|link| {
            // After a renewal, new tunnels go over connections made with the new certificate.
            let current = link.not_after == tls.not_after;
            current && !link.retired.get() && link.active() < limits.streams_per_connection
        });
        usable.max_by_key(|link| link.active()).cloned()
    }
}
