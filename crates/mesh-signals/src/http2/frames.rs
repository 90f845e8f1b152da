//! Frames of one direction (RFC 9113, section 4).

use crate::Lost;

/// Octets of a header block that are held until it is complete.
const MAX_BLOCK: usize = 64 << 10;
/// Octets of a frame's header.
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A header block is complete: [`Frames::take_block`] has it.
    Block { stream: u32, promised: bool, ends: bool },
    /// So many octets of a body.
    Data { stream: u32, count: u64 },
    /// The sender has no more for the stream.
    End { stream: u32 },
    /// The stream was given up.
    Reset { stream: u32 },
}

/// The frame that is passing.
#[derive(Debug, Clone, Copy)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    /// Octets of the payload that are still to come.
    rest: usize,
}

/// The frames of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The preface of a client, while it passes.
    skip: usize,
    header: Vec<u8>,
    frame: Option<Frame>,
    block: Vec<u8>,
    /// Where the payload of the frame that is passing begins in `block`.
    payload: usize,
    /// Whether the block's first frame ended its stream, or was a promise.
    first: (bool, bool),
}

impl Frames {
    /// Those of a client, which begin with a preface of that length.
    pub(super) fn after(preface: usize) -> Self {
        Self { skip: preface, ..Self::default() }
    }

    /// The block that was found complete.
    pub(super) fn take_block(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.block)
    }

    /// Gives a block's memory back for the next.
    pub(super) fn give_back(&mut self, mut block: Vec<u8>) {
        block.clear();
        self.block = block;
    }

    /// The next thing in `bytes`, which lose what it is made of; none when they are used up.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Found>, Lost> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        *bytes = &bytes[skipped..];
        loop {
            let Some(frame) = self.frame else {
                if !self.begin(bytes) {
                    return Ok(None);
                }
                continue;
            };
            let passing = frame.rest.min(bytes.len());
            if passing == 0 && frame.rest > 0 {
                return Ok(None);
            }
            let (payload, rest) = bytes.split_at(passing);
            *bytes = rest;
            if matches!(frame.kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
                if self.block.len() + payload.len() > MAX_BLOCK {
                    return Err(Lost);
                }
                self.block.extend_from_slice(payload);
            }
            let whole = passing == frame.rest;
            self.frame = (!whole).then_some(Frame { rest: frame.rest - passing, ..frame });
            if let Some(found) = self.found(frame, passing, whole)? {
                return Ok(Some(found));
            }
        }
    }

    /// Passes over `count` bytes of a frame's payload that are not shown. A header block's would be missed.
    pub(super) fn pass_over(&mut self, count: u64) -> Result<Option<Found>, Lost> {
        let frame = self.frame.ok_or(Lost)?;
        let passed = usize::try_from(count).map_err(|_| Lost)?;
        if passed > frame.rest || matches!(frame.kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
            return Err(Lost);
        }
        let whole = passed == frame.rest;
        self.frame = (!whole).then_some(Frame { rest: frame.rest - passed, ..frame });
        self.found(frame, passed, whole)
    }

    /// Reads a frame's header; false while it is not complete.
    fn begin(&mut self, bytes: &mut &[u8]) -> bool {
        let missing = HEADER - self.header.len();
        let (more, rest) = bytes.split_at(missing.min(bytes.len()));
        *bytes = rest;
        self.header.extend_from_slice(more);
        let [a, b, c, kind, flags, stream @ ..] = &self.header[..] else { return false };
        let Ok(stream) = <[u8; 4]>::try_from(stream) else { return false };
        let rest = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        self.frame = Some(Frame { kind: *kind, flags: *flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, rest });
        self.header.clear();
        self.payload = self.block.len();
        true
    }

    fn found(&mut self, frame: Frame, passed: usize, whole: bool) -> Result<Option<Found>, Lost> {
        let (stream, ends) = (frame.stream, frame.flags & END_STREAM != 0);
        Ok(match frame.kind {
            DATA if passed > 0 => {
                // What ends with it is found next, with an empty rest.
                if whole && ends {
                    self.frame = Some(Frame { rest: 0, ..frame });
                }
                Some(Found::Data { stream, count: passed as u64 })
            }
            DATA => (whole && ends).then_some(Found::End { stream }),
            RST_STREAM => whole.then_some(Found::Reset { stream }),
            HEADERS | PUSH_PROMISE | CONTINUATION if whole => {
                if frame.kind != CONTINUATION {
                    self.strip(frame)?;
                    self.first = (ends && frame.kind == HEADERS, frame.kind == PUSH_PROMISE);
                }
                let (ends, promised) = self.first;
                (frame.flags & END_HEADERS != 0).then_some(Found::Block { stream, promised, ends })
            }
            _ => None,
        })
    }

    /// Takes off what a HEADERS or PUSH_PROMISE frame has around its part of the block (RFC 9113, sections 6.2 and 6.6).
    fn strip(&mut self, frame: Frame) -> Result<(), Lost> {
        let payload = self.block.get(self.payload..).ok_or(Lost)?;
        let padding = if frame.flags & PADDED == 0 { None } else { Some(usize::from(*payload.first().ok_or(Lost)?)) };
        let mut before = usize::from(padding.is_some());
        before += match frame.kind {
            HEADERS if frame.flags & PRIORITY != 0 => 5,
            PUSH_PROMISE => 4,
            _ => 0,
        };
        let after = padding.unwrap_or(0);
        if before + after > payload.len() {
            return Err(Lost);
        }
        self.block.truncate(self.block.len() - after);
        self.block.drain(self.payload..self.payload + before);
        Ok(())
    }
}
