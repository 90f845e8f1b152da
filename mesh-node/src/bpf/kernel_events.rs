//! All that the kernel tells the daemon of by itself.

use std::path::Path;

use super::{direct_events::DirectEvents, direct_signals::DirectSignals, drop_events::DropEvents, ring::RingError};

/// Its ring buffers. Each has one reader: there may be one of these.
pub struct KernelEvents {
    /// What became of direct connections.
    pub direct: DirectEvents,
    /// What direct connections say.
    pub signals: DirectSignals,
    /// What was dropped.
    pub drops: DropEvents,
}

impl KernelEvents {
    /// Opens the pinned ring buffers in `maps`; in a runtime.
    ///
    /// # Errors
    /// One is not there, or the runtime cannot watch it.
    pub fn open(maps: &Path) -> Result<Self, RingError> {
        let (direct, signals) = (DirectEvents::open(maps)?, DirectSignals::open(maps)?);
        Ok(Self { direct, signals, drops: DropEvents::open(maps)? })
    }
}
