//! The application's bytes in TLS records without a copy: read into the place where they are sealed, written from where
//! they were opened.

use std::array;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;

use tokio::net::TcpStream;

use super::Frame;
use crate::buffer::{Buffer, Sizing};
use crate::record::{HEADER, Keys, MAX_CONTENT, OVERHEAD, RecordError};
use crate::socket::{read_vectored_now, write_now};

/// A full record.
const SLOT: usize = MAX_CONTENT + OVERHEAD;
/// Records in the largest buffer.
const MAX_SLOTS: usize = 16;

/// Up to sixteen records, side by side in one buffer.
pub(crate) struct Burst {
    buffer: Buffer,
    slots: usize,
    /// What each record begins with.
    frame: Option<Frame>,
}

impl Burst {
    /// Of frames of DATA.
    pub(crate) fn new(sizing: &Sizing) -> Self {
        Self::of(Some(Frame::Data), sizing)
    }

    /// Of records that have the application's bytes alone.
    pub(crate) fn bare(sizing: &Sizing) -> Self {
        Self::of(None, sizing)
    }

    fn of(frame: Option<Frame>, sizing: &Sizing) -> Self {
        let buffer = sizing.buffer();
        let slots = (buffer.len() / SLOT).min(MAX_SLOTS);
        Self { buffer, slots, frame }
    }

    /// Bytes of a record's content before the application's.
    fn framing(&self) -> usize {
        usize::from(self.frame.is_some())
    }

    /// The application's bytes in a full record.
    fn payload(&self) -> usize {
        MAX_CONTENT - self.framing()
    }

    /// Where they stand in it.
    fn place(&self) -> Range<usize> {
        HEADER + self.framing()..HEADER + MAX_CONTENT
    }

    /// The application's bytes that it takes.
    pub(crate) fn capacity(&self) -> usize {
        self.slots * self.payload()
    }

    /// Reads what `socket` has, each record's bytes to their place.
    pub(crate) fn read(&mut self, socket: &TcpStream) -> io::Result<Option<usize>> {
        let place = self.place();
        let mut slots = self.buffer.chunks_exact_mut(SLOT).take(self.slots);
        let mut slices: [IoSliceMut<'_>; MAX_SLOTS] = array::from_fn(|_| {
            let room = slots.next().map(|slot| &mut slot[place.clone()]);
            IoSliceMut::new(room.unwrap_or(&mut []))
        });
        read_vectored_now(socket, &mut slices[..self.slots])
    }

    /// The first `count` bytes that were read, by records.
    pub(crate) fn parts(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        let (payload, place) = (self.payload(), self.place());
        let slots = self.buffer.chunks_exact(SLOT).take(count.div_ceil(payload)).enumerate();
        slots.map(move |(index, slot)| &slot[place.clone()][..payload.min(count - index * payload)])
    }

    /// Seals the first `count` bytes that were read. Returns the bytes for the wire.
    pub(crate) fn seal(&mut self, count: usize, keys: &mut Keys) -> Result<&[u8], RecordError> {
        let mut rest = count;
        let mut end = 0;
        while rest > 0 {
            let payload = rest.min(self.payload());
            let record = end..end + self.framing() + payload + OVERHEAD;
            end = record.end;
            let record = self.buffer.get_mut(record).ok_or(RecordError::Length(count))?;
            if let Some(frame) = self.frame {
                record[HEADER] = frame as u8;
            }
            keys.seal(record)?;
            rest -= payload;
        }
        Ok(&self.buffer[..end])
    }
}

/// Where the application's bytes stand in an input that was opened in place.
#[derive(Default)]
pub(crate) struct Parts {
    ranges: [(u32, u32); Self::MAX],
    count: usize,
    first: usize,
}

impl Parts {
    const MAX: usize = 24;

    pub(crate) fn has_room(&self) -> bool {
        self.count < Self::MAX
    }

    /// Adds a range of a buffer, which is never longer than a `u32` counts.
    pub(crate) fn push(&mut self, range: Range<usize>) {
        if let (Ok(start), Ok(end)) = (u32::try_from(range.start), u32::try_from(range.end))
            && start < end
            && let Some(free) = self.ranges.get_mut(self.count)
        {
            *free = (start, end);
            self.count += 1;
        }
    }

    /// Bytes that are still to be written.
    pub(crate) fn len(&self) -> usize {
        self.ranges[self.first..self.count].iter().map(|&(start, end)| (end - start) as usize).sum()
    }

    /// These parts of `bytes`, in order.
    pub(crate) fn each<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let pending = self.ranges[self.first..self.count].iter();
        pending.filter_map(|&(start, end)| bytes.get(start as usize..end as usize))
    }

    /// Writes what the socket takes now of these parts of `bytes`.
    pub(crate) fn write(&mut self, socket: &TcpStream, bytes: &[u8]) -> io::Result<Option<usize>> {
        let pending = &self.ranges[self.first..self.count];
        let slices: [IoSlice<'_>; Self::MAX] = array::from_fn(|i| {
            let part = pending.get(i).and_then(|&(start, end)| bytes.get(start as usize..end as usize));
            IoSlice::new(part.unwrap_or(&[]))
        });
        let written = write_now(socket, &slices[..pending.len()])?;
        self.advance(written.unwrap_or(0));
        Ok(written)
    }

    fn advance(&mut self, mut written: usize) {
        for (start, end) in &mut self.ranges[self.first..self.count] {
            let whole = (*end - *start) as usize;
            if written < whole {
                // Less than a u32, which `whole` came from.
                *start = end.saturating_sub(u32::try_from(whole - written).unwrap_or(0));
                return;
            }
            written -= whole;
            self.first += 1;
        }
    }
}
