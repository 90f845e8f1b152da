//! The memory of a BPF ring buffer, as its one reader has it (Linux, Documentation/bpf/ringbuf.rst).
//!
//! A page has the reader's position, the next one the kernel's, and then come the records, each after a header of its own. The
//! kernel offers their pages twice in a row, so that a record that goes on at the ring's beginning can be read in one piece. All
//! that is mapped is resident, and would count twice; here it is mapped once, and such a record is put together.

use std::{
    ffi::c_void,
    io, mem,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    ptr::{self, NonNull},
    slice,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence},
};

use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

/// The record is still being written (`BPF_RINGBUF_BUSY_BIT`).
const BUSY: u32 = 1 << 31;
/// The record is none: its writer has given it up (`BPF_RINGBUF_DISCARD_BIT`).
const DISCARDED: u32 = 1 << 30;
/// Octets before each record, which begins with its length (`BPF_RINGBUF_HDR_SZ`). Each begins at a multiple of it.
const HEADER: usize = 8;

/// A ring buffer's records, in the order in which they were begun.
pub(super) struct RingBuffer {
    /// Of the kernel's map: ready when there are records.
    map: OwnedFd,
    reader: Mapping,
    writer: Mapping,
    /// Octets of records that there is room for, a power of two.
    size: usize,
    /// How far this reader is.
    position: usize,
    /// Whether it has gone on since it last looked in an order that the kernel's writers keep as well.
    has_moved: bool,
    /// A record that goes on at the ring's beginning.
    joined: Vec<u8>,
}

impl RingBuffer {
    /// Maps the ring buffer of so many octets.
    ///
    /// # Errors
    /// The kernel does not map it: `map` is no ring buffer of that size.
    pub(super) fn map(map: OwnedFd, size: u32) -> io::Result<Self> {
        let (page, size) = (page_size(), usize::try_from(size).unwrap_or(usize::MAX));
        if !size.is_power_of_two() || size < page {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no size of a ring buffer"));
        }
        let reader = Mapping::of(&map, 0, page, ProtFlags::READ | ProtFlags::WRITE)?;
        let writer = Mapping::of(&map, page, page + size, ProtFlags::READ)?;
        let position = reader.position().load(Ordering::Acquire);
        Ok(Self { map, reader, writer, size, position, has_moved: false, joined: Vec::new() })
    }

    /// Has the next record read, if it is there; then the kernel may write another in its place.
    ///
    /// After `None`, the descriptor becomes ready with the next record.
    pub(super) fn take<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        loop {
            let header = self.next_header()?;
            // No record is longer than the ring.
            let length =
                usize::try_from(header & !(BUSY | DISCARDED)).map_or(self.size, |length| length.min(self.size));
            if header & DISCARDED != 0 {
                self.go_on(length);
                continue;
            }
            let taken = read(self.record(length));
            self.go_on(length);
            return Some(taken);
        }
    }

    /// The header of the next record, if that is written; else its writer will wake this reader.
    fn next_header(&mut self) -> Option<u32> {
        let found = self.header();
        if found.is_some() || !mem::take(&mut self.has_moved) {
            return found;
        }
        // A writer wakes who has read all before its record. Either it sees that, or its record is seen now.
        fence(Ordering::SeqCst);
        self.header()
    }

    /// The header of the next record, if that is written.
    fn header(&self) -> Option<u32> {
        // Of memory that can only be read, no stronger load is promised.
        let written = self.writer.position().load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if written == self.position {
            return None;
        }
        let place = self.place(self.position);
        // SAFETY: the place is in the mapping and aligned for it; the kernel changes it by atomic operations alone.
        let header = unsafe { AtomicU32::from_ptr(place.cast()) };
        // The kernel stores it after the record.
        let header = header.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        Some(header).filter(|header| header & BUSY == 0)
    }

    /// The octets of the next record, which is written.
    fn record(&mut self, length: usize) -> &[u8] {
        let begin = self.position.wrapping_add(HEADER);
        let first = length.min(self.size - (begin & (self.size - 1)));
        let (first, rest) = ((self.place(begin), first), (self.place(0), length - first));
        // SAFETY: both are in the mapping, by the bounds above, and the kernel writes to a record no more until the reader's
        // position is past it.
        let (first, rest) = unsafe { (slice::from_raw_parts(first.0, first.1), slice::from_raw_parts(rest.0, rest.1)) };
        if rest.is_empty() {
            return first;
        }
        self.joined.clear();
        self.joined.extend_from_slice(first);
        self.joined.extend_from_slice(rest);
        &self.joined
    }

    /// Where the octet at a position is.
    fn place(&self, position: usize) -> *mut u8 {
        self.writer.begin.as_ptr().cast::<u8>().wrapping_add(page_size() + (position & (self.size - 1)))
    }

    /// Leaves a record behind, which the kernel may write over then.
    fn go_on(&mut self, length: usize) {
        self.position = self.position.wrapping_add((HEADER + length).next_multiple_of(HEADER));
        self.reader.position().store(self.position, Ordering::Release);
        self.has_moved = true;
    }
}

impl AsRawFd for RingBuffer {
    fn as_raw_fd(&self) -> RawFd {
        self.map.as_raw_fd()
    }
}

/// A part of a map in this process's memory.
struct Mapping {
    begin: NonNull<c_void>,
    length: usize,
}

impl Mapping {
    fn of(map: &OwnedFd, offset: usize, length: usize, access: ProtFlags) -> io::Result<Self> {
        let offset = u64::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: the kernel chooses an address that is free.
        let begin = unsafe { mmap(ptr::null_mut(), length, access, MapFlags::SHARED, map.as_fd(), offset) }?;
        let begin = NonNull::new(begin).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { begin, length })
    }

    /// The position that is in its first octets.
    fn position(&self) -> &AtomicUsize {
        // SAFETY: a mapping begins with a page, and who changes the position does so atomically.
        unsafe { AtomicUsize::from_ptr(self.begin.as_ptr().cast()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's alone, and whoever borrows from it has ended.
        // Nothing can be done about an error, and there is none for what is mapped.
        let _ = unsafe { munmap(self.begin.as_ptr(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt};

    use super::*;

    /// A file that is laid out as the kernel lays out a map, and written as it writes.
    struct Writer {
        file: File,
        size: usize,
        position: usize,
    }

    impl Writer {
        /// A ring of one page, both ends at `position`, and its reader.
        fn at(position: usize) -> (Self, RingBuffer) {
            let size = page_size();
            let file = tempfile::tempfile().expect("a file");
            file.set_len(3 * size as u64).expect("its length");
            let writer = Self { file, size, position };
            writer.write(0, &position.to_ne_bytes());
            writer.publish();
            let map = writer.file.try_clone().expect("a descriptor").into();
            let ring = RingBuffer::map(map, size.try_into().expect("a page's size")).expect("mapped");
            (writer, ring)
        }

        fn write(&self, at: usize, octets: &[u8]) {
            self.file.write_all_at(octets, at as u64).expect("written");
        }

        fn publish(&self) {
            self.write(self.size, &self.position.to_ne_bytes());
        }

        fn header(&self, at: usize, header: u32) {
            self.write(2 * self.size + at % self.size, &header.to_ne_bytes());
        }

        fn put(&mut self, record: &[u8], flags: u32) {
            self.header(self.position, u32::try_from(record.len()).expect("short") | flags);
            for (number, octet) in record.iter().enumerate() {
                self.write(2 * self.size + (self.position + HEADER + number) % self.size, &[*octet]);
            }
            self.position += (HEADER + record.len()).next_multiple_of(HEADER);
            self.publish();
        }

        fn reader_position(&self) -> usize {
            let mut position = [0; size_of::<usize>()];
            self.file.read_exact_at(&mut position, 0).expect("read");
            usize::from_ne_bytes(position)
        }
    }

    fn next(ring: &mut RingBuffer) -> Option<Vec<u8>> {
        ring.take(<[u8]>::to_vec)
    }

    #[test]
    fn records_are_read_in_order_and_given_back() {
        let (mut writer, mut ring) = Writer::at(0);
        assert_eq!(next(&mut ring), None);
        writer.put(b"one", 0);
        writer.put(b"the second", 0);
        assert_eq!(next(&mut ring).as_deref(), Some(&b"one"[..]));
        assert_eq!(writer.reader_position(), 16);
        assert_eq!(next(&mut ring).as_deref(), Some(&b"the second"[..]));
        assert_eq!((next(&mut ring), writer.reader_position()), (None, writer.position));
    }

    #[test]
    fn a_record_that_goes_on_at_the_beginning_is_read_whole() {
        let size = page_size();
        for before_end in [8, 16, 24, 32] {
            let (mut writer, mut ring) = Writer::at(5 * size - before_end);
            writer.put(b"twenty-one octets, so", 0);
            writer.put(b"another", 0);
            assert_eq!(next(&mut ring).as_deref(), Some(&b"twenty-one octets, so"[..]), "{before_end}");
            assert_eq!(next(&mut ring).as_deref(), Some(&b"another"[..]), "{before_end}");
        }
    }

    #[test]
    fn what_is_being_written_is_waited_for_and_what_was_given_up_is_not_seen() {
        let (mut writer, mut ring) = Writer::at(0);
        let at = writer.position;
        writer.put(b"slow", BUSY);
        writer.put(b"never", DISCARDED);
        writer.put(b"quick", 0);
        assert_eq!(next(&mut ring), None);
        writer.header(at, 4);
        assert_eq!(next(&mut ring).as_deref(), Some(&b"slow"[..]));
        assert_eq!(next(&mut ring).as_deref(), Some(&b"quick"[..]));
        assert_eq!(next(&mut ring), None);
    }

    #[test]
    fn a_reader_begins_where_the_last_one_ended() {
        let (mut writer, mut ring) = Writer::at(0);
        writer.put(b"one", 0);
        writer.put(b"two", 0);
        assert_eq!(next(&mut ring).as_deref(), Some(&b"one"[..]));
        drop(ring);
        let map = writer.file.try_clone().expect("a descriptor").into();
        let mut ring = RingBuffer::map(map, writer.size.try_into().expect("a page's size")).expect("mapped");
        assert_eq!(next(&mut ring).as_deref(), Some(&b"two"[..]));
    }

    #[test]
    fn only_sizes_of_ring_buffers_are_mapped() {
        for size in [0, 1, 3 * 4096 - 1, u32::MAX] {
            let map = tempfile::tempfile().expect("a file").into();
            assert!(RingBuffer::map(map, size).is_err(), "{size}");
        }
    }
}
