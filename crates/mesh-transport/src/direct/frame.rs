//! Frames: one to a TLS record, the first byte says which.

use std::io;

use crate::record::{HEADER, MAX_CONTENT, OVERHEAD, Opened, RecordError};
use crate::session::Session;
use crate::socket::write_all;

/// What a record's first byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    Request = 1,
    Response = 2,
    Data = 3,
    Fin = 4,
    Reset = 5,
}

/// Why a direct tunnel's connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The socket failed.
    #[error("the tunnel's socket failed: {0}")]
    Io(#[from] io::Error),
    /// TLS's records were wrong, or the peer sent an alert.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A frame that does not belong there.
    #[error("unexpected frame of type {0} in the tunnel")]
    Frame(u8),
    /// A REQUEST or RESPONSE that cannot be understood.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// The peer closed the connection.
    #[error("the peer closed the tunnel's connection")]
    Closed,
}

impl TunnelError {
    /// Whether the peer broke the protocol, as opposed to having gone.
    pub(crate) fn is_violation(&self) -> bool {
        match self {
            Self::Io(_) | Self::Closed | Self::Record(RecordError::Alert(_)) => false,
            Self::Record(_) | Self::Frame(_) | Self::Malformed(_) => true,
        }
    }
}

/// Takes a record's content apart.
pub(crate) fn split(content: &[u8]) -> Result<(Frame, &[u8]), TunnelError> {
    let (&kind, payload) = content.split_first().ok_or(TunnelError::Frame(0))?;
    let frame = match kind {
        1 => Frame::Request,
        2 => Frame::Response,
        3 => Frame::Data,
        4 => Frame::Fin,
        5 => Frame::Reset,
        other => return Err(TunnelError::Frame(other)),
    };
    Ok((frame, payload))
}

/// A sealed frame with a short payload.
pub(crate) fn seal(session: &Session, frame: Frame, payload: &[u8]) -> Result<Vec<u8>, TunnelError> {
    if payload.len() >= MAX_CONTENT {
        return Err(TunnelError::Malformed("frame: it is longer than a record"));
    }
    let mut keys = session.keys.borrow_mut();
    let mut bytes = keys.key_update()?.map_or_else(Vec::new, |update| update.to_vec());
    let start = bytes.len();
    bytes.resize(start + payload.len() + 1 + OVERHEAD, 0);
    bytes[start + HEADER] = frame as u8;
    bytes[start + HEADER + 1..][..payload.len()].copy_from_slice(payload);
    keys.seal(&mut bytes[start..])?;
    Ok(bytes)
}

/// Sends a frame with a short payload.
pub(crate) async fn send(session: &Session, frame: Frame, payload: &[u8]) -> Result<(), TunnelError> {
    let bytes = seal(session, frame, payload)?;
    Ok(write_all(&session.socket, &bytes).await?)
}

/// Waits for a frame, outside of the flow of DATA. `None` when the peer closed in order. Losing the future loses nothing.
pub(crate) async fn receive(session: &mut Session) -> Result<Option<(Frame, Vec<u8>)>, TunnelError> {
    loop {
        let opened = session.keys.borrow_mut().open(session.input.bytes())?;
        match opened {
            Opened::Handled { length } => session.input.consume(length),
            Opened::Closed => return Ok(None),
            Opened::Data { content, length } => {
                let (frame, payload) = split(&session.input.bytes()[content])?;
                let payload = payload.to_vec();
                session.input.consume(length);
                return Ok(Some((frame, payload)));
            }
            Opened::Incomplete => {
                if session.input.fill(&session.socket).await? == 0 {
                    return Err(TunnelError::Closed);
                }
            }
        }
    }
}
