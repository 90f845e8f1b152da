//! A ring buffer that the kernel fills: it has one reader.

use std::{io, os::fd::AsFd as _, path::Path};

use tokio::io::{Interest, unix::AsyncFd};

use super::{
    maps::{MapAccessError, open_ring},
    ring_buffer::RingBuffer,
};

/// The ring buffer could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// It could not be opened.
    #[error(transparent)]
    Map(#[from] MapAccessError),
    /// It could not be mapped.
    #[error("cannot map the kernel's events in {name}: {source}")]
    Memory {
        /// The map's name.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
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
pub(super) struct Ring(AsyncFd<RingBuffer>);

impl Ring {
    /// Opens the pinned ring buffer in `maps`; in a runtime.
    pub(super) fn open(maps: &Path, name: &'static str) -> Result<Self, RingError> {
        let (map, size) = open_ring(maps, name)?;
        let mapped = map.fd().as_fd().try_clone_to_owned().and_then(|map| RingBuffer::map(map, size));
        let ring = mapped.map_err(|source| RingError::Memory { name, source })?;
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
            let whole = |record: &[u8]| split(record).filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value);
            if let Some(value) = self.take(whole)? {
                return Some(value);
            }
        }
    }

    /// Has the next record's octets read, if there is one now.
    pub(super) fn take<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.0.get_mut().take(read)
    }
}

/// The value at the beginning of a record, and what follows it.
pub(super) fn split<T: aya::Pod>(record: &[u8]) -> Option<(T, &[u8])> {
    let (value, rest) = record.split_at_checked(size_of::<T>())?;
    // SAFETY: the octets are as many as the value has, and every value of a `Pod` type's integers is valid.
    Some((unsafe { value.as_ptr().cast::<T>().read_unaligned() }, rest))
}
