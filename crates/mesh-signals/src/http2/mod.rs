//! HTTP/2 and gRPC: an exchange a stream.

mod frames;
mod hpack;
mod huffman;
mod table;

use std::{collections::HashMap, time::Duration};

use self::{
    frames::{Found, Frames, Passing},
    hpack::{Decoder, Facts},
};
use crate::{Exchange, Lost, Protocol, Sender, recognition::PREFACE};

/// Streams that are followed at once. Those beyond are not told of, and the others go on.
const MAX_STREAMS: usize = 1024;

/// Both directions of a connection.
#[derive(Debug)]
pub(crate) struct Http2 {
    client: Direction,
    server: Direction,
    streams: HashMap<u32, Stream>,
}

#[derive(Debug)]
struct Direction {
    frames: Frames,
    decoder: Decoder,
}

#[derive(Debug)]
struct Stream {
    began: Duration,
    facts: Facts,
    request_bytes: u64,
    response_bytes: u64,
}

impl Default for Http2 {
    fn default() -> Self {
        let direction = |frames| Direction { frames, decoder: Decoder::default() };
        Self {
            client: direction(Frames::after(PREFACE)),
            server: direction(Frames::default()),
            streams: HashMap::new(),
        }
    }
}

impl Http2 {
    pub(crate) fn show(
        &mut self,
        sender: Sender,
        bytes: &[u8],
        at: Duration,
        done: &mut impl FnMut(Exchange),
    ) -> Result<(), Lost> {
        self.pass(sender, Passing::all(bytes), at, done)
    }

    /// Shows the frames' headers and the header blocks of so many bytes.
    pub(crate) fn show_frames(
        &mut self,
        sender: Sender,
        (shown, length): (&[u8], usize),
        at: Duration,
        done: &mut impl FnMut(Exchange),
    ) -> Result<(), Lost> {
        self.pass(sender, Passing::without_bodies(shown, length)?, at, done)
    }

    fn pass(
        &mut self,
        sender: Sender,
        mut bytes: Passing<'_>,
        at: Duration,
        done: &mut impl FnMut(Exchange),
    ) -> Result<(), Lost> {
        while let Some(found) = self.direction(sender).frames.next(&mut bytes)? {
            self.found(sender, found, at, done)?;
        }
        // What is left is of no frame: more, or less, was left out than bodies.
        if bytes.is_over() { Ok(()) } else { Err(Lost) }
    }

    fn direction(&mut self, sender: Sender) -> &mut Direction {
        match sender {
            Sender::Client => &mut self.client,
            Sender::Server => &mut self.server,
        }
    }

    fn found(
        &mut self,
        sender: Sender,
        found: Found,
        at: Duration,
        done: &mut impl FnMut(Exchange),
    ) -> Result<(), Lost> {
        match found {
            Found::Block { stream, promised, ends } => {
                let direction = self.direction(sender);
                let block = direction.frames.take_block();
                let facts = direction.decoder.read(&block)?;
                direction.frames.give_back(block);
                if !promised {
                    self.header(sender, stream, facts, at);
                    self.ended(sender, stream, ends, at, done);
                }
            }
            Found::Data { stream, count } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    match sender {
                        Sender::Client => stream.request_bytes += count,
                        Sender::Server => stream.response_bytes += count,
                    }
                }
            }
            Found::End { stream } => self.ended(sender, stream, true, at, done),
            Found::Reset { stream } => {
                if let Some(stream) = self.streams.remove(&stream) {
                    done(stream.exchange(at));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn end(self, at: Duration, done: &mut impl FnMut(Exchange)) {
        self.streams.values().for_each(|stream| done(stream.exchange(at)));
    }

    fn header(&mut self, sender: Sender, id: u32, facts: Facts, at: Duration) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let known = &mut stream.facts;
            // The last one counts: interim responses come before the final one. Trailers have gRPC's.
            known.status = facts.status.or(known.status);
            known.grpc_status = facts.grpc_status.or(known.grpc_status);
            known.is_grpc |= facts.is_grpc;
            return;
        }
        if sender == Sender::Client && self.streams.len() < MAX_STREAMS {
            let facts = Facts { status: None, ..facts };
            self.streams.insert(id, Stream { began: at, facts, request_bytes: 0, response_bytes: 0 });
        }
    }

    /// The response's end is the exchange's.
    fn ended(&mut self, sender: Sender, id: u32, ends: bool, at: Duration, done: &mut impl FnMut(Exchange)) {
        if ends
            && sender == Sender::Server
            && let Some(stream) = self.streams.remove(&id)
        {
            done(stream.exchange(at));
        }
    }
}

impl Stream {
    fn exchange(&self, at: Duration) -> Exchange {
        Exchange {
            protocol: if self.facts.is_grpc { Protocol::Grpc } else { Protocol::Http },
            status: self.facts.status.filter(|status| *status >= 200),
            grpc_status: self.facts.grpc_status,
            duration: at.saturating_sub(self.began),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
        }
    }
}
