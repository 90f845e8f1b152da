//! Connections kept for reuse.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many unused connections to one upstream are kept.
const MOST_IDLE: usize = 64;

/// Unused connections to one upstream, the last used first. None is used beyond its age limit, so
/// that new addresses and new versions of an upstream come into use.
#[derive(Debug)]
pub(crate) struct Connections<C> {
    idle: Mutex<Vec<Connection<C>>>,
    max_age: Duration,
}

/// A connection and when it was opened.
#[derive(Debug)]
pub(crate) struct Connection<C> {
    pub(crate) opened: Instant,
    pub(crate) inner: C,
}

impl<C> Connections<C> {
    /// With `max_age` zero, no connection is used twice.
    pub(crate) fn new(max_age: Duration) -> Self {
        Self { idle: Mutex::new(Vec::new()), max_age }
    }

    /// An unused connection, where there is one young enough.
    pub(crate) fn take(&self) -> Option<Connection<C>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|kept| kept.opened.elapsed() < self.max_age);
        idle.pop()
    }

    /// Keeps a connection whose last exchange ended well.
    pub(crate) fn keep(&self, connection: Connection<C>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.opened.elapsed() < self.max_age && idle.len() < MOST_IDLE {
            idle.push(connection);
        }
    }
}

/// One connection that all requests share at once, as HTTP/2 allows.
#[derive(Debug)]
pub(crate) struct SharedConnection<C> {
    current: Mutex<Option<Connection<C>>>,
    max_age: Duration,
}

impl<C: Clone> SharedConnection<C> {
    /// With `max_age` zero, every request has its own.
    pub(crate) fn new(max_age: Duration) -> Self {
        Self { current: Mutex::new(None), max_age }
    }

    /// The connection, where there is one young enough.
    pub(crate) fn current(&self) -> Option<C> {
        let mut current = self.lock();
        current.take_if(|kept| kept.opened.elapsed() >= self.max_age);
        current.as_ref().map(|kept| kept.inner.clone())
    }

    /// Shares a new connection in place of the one before.
    pub(crate) fn keep(&self, inner: C) {
        if self.max_age > Duration::ZERO {
            let opened = Instant::now();
            *self.lock() = Some(Connection { opened, inner });
        }
    }

    /// Drops a connection that proved dead; requests on it end by themselves.
    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection<C>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(inner: u32) -> Connection<u32> {
        Connection { opened: Instant::now(), inner }
    }

    #[test]
    fn the_last_used_connection_is_used_next() {
        let connections = Connections::new(Duration::from_secs(3600));
        connections.keep(connection(1));
        connections.keep(connection(2));
        assert_eq!(connections.take().map(|c| c.inner), Some(2));
        assert_eq!(connections.take().map(|c| c.inner), Some(1));
        assert!(connections.take().is_none());
    }

    #[test]
    fn age_zero_keeps_nothing() {
        let connections = Connections::new(Duration::ZERO);
        connections.keep(connection(1));
        assert!(connections.take().is_none());
    }

    #[test]
    fn a_flood_of_connections_is_not_all_kept() {
        let connections = Connections::new(Duration::from_secs(3600));
        (0..1000).for_each(|n| connections.keep(connection(n)));
        let kept = std::iter::from_fn(|| connections.take()).count();
        assert_eq!(kept, MOST_IDLE);
    }

    #[test]
    fn a_shared_connection_is_given_to_all_until_it_is_forgotten() {
        let shared = SharedConnection::new(Duration::from_secs(3600));
        assert_eq!(shared.current(), None);
        shared.keep(7);
        assert_eq!((shared.current(), shared.current()), (Some(7), Some(7)));
        shared.forget();
        assert_eq!(shared.current(), None);
        let never = SharedConnection::new(Duration::ZERO);
        never.keep(7);
        assert_eq!(never.current(), None);
    }
}
