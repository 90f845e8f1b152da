//! A ring buffer that the kernel fills: it has one reader.

use std::{io, path::Path};

use aya::maps::{Map, MapData, RingBuf, ring_buf::RingBufItem};
use tokio::io::{Interest, unix::AsyncFd};

use super::maps::{MapAccessError, open};

/// The ring buffer could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// It could not be opened.
    #[error(transparent)]
    Map(#[from] MapAccessError),
    /// It could not be watched.
    #[error("cannot watch the kernel's events in {name}: {source}")]
    Watch {
        /// The map's name.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// The reader.
pub(super) struct Ring(AsyncFd<RingBuf<MapData>>);

impl Ring {
    /// Opens the pinned ring buffer in `maps`; in a runtime.
    pub(super) fn open(maps: &Path, name: &'static str) -> Result<Self, RingError> {
        let ring: RingBuf<MapData> = open(maps, name, Map::RingBuf)?;
        // SAFETY: the ring owns its descriptor and keeps the same one for as long as it lives.
        let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        registered.map(Self).map_err(|error| RingError::Watch { name, source: error.into_parts().1 })
    }

    /// Waits until there are records.
    pub(super) async fn ready(&mut self) -> io::Result<()> {
        self.0.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// The next record that is whole, if there is one now.
    pub(super) fn next<T: aya::Pod>(&mut self) -> Option<T> {
        loop {
            let record = self.record()?;
            if record.len() == size_of::<T>() {
                return split(&record).map(|(value, _)| value);
            }
        }
    }

    /// The next record's octets, if there is one now.
    pub(super) fn record(&mut self) -> Option<RingBufItem<'_>> {
        self.0.get_mut().next()
    }
}

/// The value at the beginning of a record, and what follows it.
pub(super) fn split<T: aya::Pod>(record: &[u8]) -> Option<(T, &[u8])> {
    let (value, rest) = record.split_at_checked(size_of::<T>())?;
    // SAFETY: the octets are as many as the value has, and every value of a `Pod` type's integers is valid.
    Some((unsafe { value.as_ptr().cast::<T>().read_unaligned() }, rest))
}
