//! What crosses the socket. A frame is the number of a connection and a length, 4 octets each, and so many octets of that connection's.
//! A message of ttrpc is a length and the number of a stream, 4 octets each, its kind and flags, an octet each, and so many octets.
//! Numbers are in network byte order. A runtime may cut a message into several frames.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The connection on which the runtime asks the plugin.
pub(crate) const OF_PLUGIN: u32 = 1;
/// The connection on which the plugin asks the runtime.
pub(crate) const OF_RUNTIME: u32 = 2;
/// Octets before a frame's own.
pub(crate) const FRAME_HEADER: usize = 8;
/// Octets before a message's own.
const MESSAGE_HEADER: usize = 10;
/// Octets of a message at most, as ttrpc has it.
const MAX_MESSAGE: usize = 4 << 20;
/// Octets of a frame at most: a message and its header.
pub(crate) const MAX_FRAME: usize = MAX_MESSAGE + MESSAGE_HEADER;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request = 1,
    Response = 2,
}

/// A message of ttrpc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) connection: u32,
    pub(crate) stream: u32,
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
}

/// The peer does not speak NRI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("{0} octets at once, where {MAX_FRAME} are the most")]
    TooLong(usize),
    #[error("a message of the kind {0}, which nobody asked for")]
    Kind(u8),
}

impl Message {
    /// The message in one frame, header and all.
    pub(crate) fn encode(&self) -> Bytes {
        let length = |octets: usize| u32::try_from(octets).unwrap_or(u32::MAX);
        let mut frame = BytesMut::with_capacity(FRAME_HEADER + MESSAGE_HEADER + self.payload.len());
        frame.put_u32(self.connection);
        frame.put_u32(length(MESSAGE_HEADER + self.payload.len()));
        frame.put_u32(length(self.payload.len()));
        frame.put_u32(self.stream);
        frame.put_u8(self.kind as u8);
        frame.put_u8(0);
        frame.put_slice(&self.payload);
        frame.freeze()
    }
}

/// A frame's connection and length.
pub(crate) fn frame_header(mut header: &[u8]) -> Result<(u32, usize), WireError> {
    let (connection, length) = (header.get_u32(), header.get_u32() as usize);
    if length > MAX_FRAME { Err(WireError::TooLong(length)) } else { Ok((connection, length)) }
}

/// What came of one connection and is no whole message yet: less than one message and one frame.
#[derive(Debug)]
pub(crate) struct Inbox {
    connection: u32,
    octets: BytesMut,
}

impl Inbox {
    pub(crate) fn of(connection: u32) -> Self {
        Self { connection, octets: BytesMut::new() }
    }

    /// Takes a frame's octets.
    pub(crate) fn push(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
    }

    /// The next message, once it is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, WireError> {
        if self.octets.len() < MESSAGE_HEADER {
            return Ok(None);
        }
        let mut header = &self.octets[..MESSAGE_HEADER];
        let (length, stream, kind) = (header.get_u32() as usize, header.get_u32(), header.get_u8());
        if length > MAX_MESSAGE {
            return Err(WireError::TooLong(length));
        }
        let kind = match kind {
            1 => Kind::Request,
            2 => Kind::Response,
            other => return Err(WireError::Kind(other)),
        };
        if self.octets.len() < MESSAGE_HEADER + length {
            return Ok(None);
        }
        self.octets.advance(MESSAGE_HEADER);
        let payload = self.octets.split_to(length).freeze();
        Ok(Some(Message { connection: self.connection, stream, kind, payload }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in 1usize..50,
        ) {
            let message = |(stream, payload): (usize, &Vec<u8>)| Message {
                connection: OF_PLUGIN, stream: stream as u32, kind: Kind::Request, payload: payload.clone().into(),
            };
            let sent: Vec<Message> = payloads.iter().enumerate().map(message).collect();
            let octets: Vec<u8> = sent.iter().flat_map(|message| message.encode().slice(FRAME_HEADER..)).collect();
            let (mut inbox, mut came) = (Inbox::of(OF_PLUGIN), Vec::new());
            for piece in octets.chunks(cut) {
                inbox.push(piece);
                while let Some(message) = inbox.next().unwrap() {
                    came.push(message);
                }
            }
            prop_assert_eq!(came, sent);
        }

        #[test]
        fn anything_at_all_is_read_without_harm(octets in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut inbox = Inbox::of(OF_PLUGIN);
            inbox.push(&octets);
            while let Ok(Some(_)) = inbox.next() {}
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_kept() {
        let header = [0, 0, 0, 1, 0x7f, 0, 0, 0];
        assert_eq!(frame_header(&header), Err(WireError::TooLong(0x7f00_0000)));
        let mut inbox = Inbox::of(OF_PLUGIN);
        inbox.push(&[0x7f, 0, 0, 0, 0, 0, 0, 1, 1, 0]);
        assert_eq!(inbox.next(), Err(WireError::TooLong(0x7f00_0000)));
    }
}
