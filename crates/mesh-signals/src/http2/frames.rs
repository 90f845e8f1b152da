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

/// Bytes of one direction that pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passing<'a> {
    /// Those that are shown.
    shown: &'a [u8],
    /// How many more there are: the payloads of frames that have no part in a header block. None where all are shown.
    unseen: Option<usize>,
}

impl<'a> Passing<'a> {
    /// Bytes that are all shown.
    pub(super) const fn all(shown: &'a [u8]) -> Self {
        Self { shown, unseen: None }
    }

    /// So many bytes, of which only the frames' headers and the header blocks are shown.
    pub(super) fn without_bodies(shown: &'a [u8], length: usize) -> Result<Self, Lost> {
        Ok(Self { shown, unseen: Some(length.checked_sub(shown.len()).ok_or(Lost)?) })
    }

    /// Whether all of them have passed.
    pub(super) fn is_over(&self) -> bool {
        self.shown.is_empty() && self.unseen.is_none_or(|unseen| unseen == 0)
    }

    fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.shown.split_at(most.min(self.shown.len()));
        self.shown = rest;
        taken
    }

    /// Takes what there is of a frame's payload: how many octets, and those of a header block.
    fn payload(&mut self, frame: &Frame) -> (usize, &'a [u8]) {
        match &mut self.unseen {
            Some(unseen) if !frame.is_of_block() => {
                let passing = frame.rest.min(*unseen);
                *unseen -= passing;
                (passing, &[])
            }
            _ => {
                let taken = self.take(frame.rest);
                (taken.len(), if frame.is_of_block() { taken } else { &[] })
            }
        }
    }
}

impl Frame {
    /// Whether its payload is a part of a header block.
    const fn is_of_block(&self) -> bool {
        matches!(self.kind, HEADERS | PUSH_PROMISE | CONTINUATION)
    }
}

/// The frames of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// What is still to come of the preface of a client.
    preface: &'static [u8],
    header: Vec<u8>,
    frame: Option<Frame>,
    block: Vec<u8>,
    /// Where the payload of the frame that is passing begins in `block`.
    payload: usize,
    /// Whether the block's first frame ended its stream, or was a promise.
    first: (bool, bool),
}

impl Frames {
    /// Those that begin with this preface.
    pub(super) fn after(preface: &'static [u8]) -> Self {
        Self { preface, ..Self::default() }
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
    pub(super) fn next(&mut self, bytes: &mut Passing<'_>) -> Result<Option<Found>, Lost> {
        let preface = bytes.take(self.preface.len());
        self.preface = self.preface.strip_prefix(preface).ok_or(Lost)?;
        loop {
            let Some(frame) = self.frame else {
                if !self.begin(bytes) {
                    return Ok(None);
                }
                continue;
            };
            let (passing, block) = bytes.payload(&frame);
            if passing == 0 && frame.rest > 0 {
                return Ok(None);
            }
            if self.block.len() + block.len() > MAX_BLOCK {
                return Err(Lost);
            }
            self.block.extend_from_slice(block);
            let whole = passing == frame.rest;
            self.frame = (!whole).then_some(Frame { rest: frame.rest - passing, ..frame });
            if let Some(found) = self.found(frame, passing, whole)? {
                return Ok(Some(found));
            }
        }
    }

    /// Reads a frame's header; false while it is not complete.
    fn begin(&mut self, bytes: &mut Passing<'_>) -> bool {
        self.header.extend_from_slice(bytes.take(HEADER - self.header.len()));
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
