//! Buffers for bytes on their way: lent by the thread, sized by what reads fill, never held while a connection is idle.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use bytes::{Buf, Bytes};

/// Sizes in bytes, smallest first: 1, 4 and 16 full TLS records with what is around them.
const SIZES: [usize; 3] = [17 << 10, 68 << 10, 272 << 10];
/// How many buffers of each size a thread keeps: at most 2.4 MiB.
const KEPT: [usize; 3] = [16, 16, 4];
/// Payloads up to this size are copied out of their buffer, so that many small ones waiting do not each hold a large one.
const COPY_BELOW: usize = 4 << 10;

thread_local! {
    static SHELF: RefCell<[Vec<Vec<u8>>; SIZES.len()]> = const { RefCell::new([Vec::new(), Vec::new(), Vec::new()]) };
}

/// A buffer that goes back to its thread's shelf when dropped.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    class: usize,
}

impl Buffer {
    fn take(class: usize) -> Self {
        let kept = SHELF.with_borrow_mut(|shelf| shelf[class].pop());
        Self { bytes: kept.unwrap_or_else(|| vec![0; SIZES[class]]), class }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // The shelf is gone while the thread ends; then the buffer just goes too.
        let _ = SHELF.try_with(|shelf| {
            let shelf = &mut shelf.borrow_mut()[self.class];
            if shelf.len() < KEPT[self.class] {
                shelf.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// Chooses the size of the next buffer from how full the last ones became.
#[derive(Debug, Default)]
pub(crate) struct Sizing {
    class: usize,
    small_reads: u8,
}

impl Sizing {
    /// Reads this much below the next smaller size before the buffer shrinks.
    const PATIENCE: u8 = 8;

    /// A buffer of the current size.
    pub(crate) fn buffer(&self) -> Buffer {
        Buffer::take(self.class)
    }

    /// A buffer of the current size, or of the next that holds `least` bytes; the largest holds 272 KiB.
    pub(crate) fn buffer_for(&self, least: usize) -> Buffer {
        let fitting = SIZES.iter().position(|&size| size >= least).unwrap_or(SIZES.len() - 1);
        Buffer::take(self.class.max(fitting))
    }

    /// The current size in bytes.
    pub(crate) fn capacity(&self) -> usize {
        SIZES[self.class]
    }

    /// Learns that a read of up to `asked` bytes gave `got`.
    pub(crate) fn learn(&mut self, asked: usize, got: usize) {
        if got == asked && 2 * asked >= SIZES[self.class] {
            self.class = (self.class + 1).min(SIZES.len() - 1);
            self.small_reads = 0;
        } else if self.class > 0 && got <= SIZES[self.class - 1] {
            self.small_reads += 1;
            if self.small_reads >= Self::PATIENCE {
                self.class -= 1;
                self.small_reads = 0;
            }
        } else {
            self.small_reads = 0;
        }
    }
}

/// What is handed to HTTP/2 for sending: the buffer itself, or a copy when that is cheaper to keep.
pub(crate) enum Chunk {
    /// A buffer, and the part of it that is still to go.
    Lent(Buffer, std::ops::Range<usize>),
    /// A small copy.
    Copied(Bytes),
}

impl Chunk {
    /// Nothing, for the end of a stream.
    pub(crate) fn empty() -> Self {
        Self::Copied(Bytes::new())
    }

    /// A copy of `bytes`.
    pub(crate) fn copied(bytes: &[u8]) -> Self {
        Self::Copied(Bytes::copy_from_slice(bytes))
    }

    /// The first `len` bytes of `buffer`.
    pub(crate) fn new(buffer: Buffer, len: usize) -> Self {
        if len <= COPY_BELOW {
            Self::Copied(Bytes::copy_from_slice(&buffer[..len]))
        } else {
            Self::Lent(buffer, 0..len)
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        match self {
            Self::Lent(_, part) => part.len(),
            Self::Copied(bytes) => bytes.len(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Lent(buffer, part) => &buffer[part.clone()],
            Self::Copied(bytes) => bytes,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Lent(_, part) => {
                assert!(count <= part.len(), "advanced beyond the chunk");
                part.start += count;
            }
            Self::Copied(bytes) => bytes.advance(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_reads_grow_the_buffer_and_small_ones_shrink_it_again() {
        let mut sizing = Sizing::default();
        for expected in [68 << 10, 272 << 10, 272 << 10] {
            sizing.learn(sizing.capacity(), sizing.capacity());
            assert_eq!(sizing.capacity(), expected);
        }
        for _ in 0..2 * Sizing::PATIENCE {
            sizing.learn(sizing.capacity(), 100);
        }
        assert_eq!(sizing.capacity(), 17 << 10);
    }

    #[test]
    fn a_short_ask_that_is_filled_does_not_grow_the_buffer() {
        let mut sizing = Sizing::default();
        sizing.learn(10, 10);
        assert_eq!(sizing.capacity(), 17 << 10);
    }

    #[test]
    fn a_small_chunk_gives_its_buffer_back_at_once() {
        let chunk = Chunk::new(Sizing::default().buffer(), 100);
        assert!(matches!(chunk, Chunk::Copied(ref bytes) if bytes.len() == 100));
    }
}
