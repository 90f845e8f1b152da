//! How an operation ended: a closed set, as a word in JSON and as an exit code.

use std::io;

use serde::Serialize;

use crate::sequence::Mismatch;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// As it should.
    Ok,
    /// Octets were not those that were sent, or too many.
    Mismatch,
    /// ECONNREFUSED.
    Refused,
    /// ECONNRESET or EPIPE.
    Reset,
    /// Not before the time limit, or ETIMEDOUT.
    Timeout,
    /// The end of the stream too early.
    Eof,
    /// EPERM or EACCES: what a denying connect hook returns.
    Eperm,
    /// EHOSTUNREACH or ENETUNREACH.
    Unreachable,
    /// Anything else; the message says what.
    Other,
}

impl Outcome {
    /// The program's exit code. 2 is for wrong usage.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Mismatch => 1,
            Self::Refused => 3,
            Self::Reset => 4,
            Self::Timeout => 5,
            Self::Eof => 6,
            Self::Eperm => 7,
            Self::Unreachable => 8,
            Self::Other => 9,
        }
    }
}

/// Why an operation did not end as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A system call failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The octet at this offset is not the one that was sent.
    #[error("octet {0} differs from what was sent")]
    Mismatch(u64),
    /// The stream ended too early.
    #[error("the stream ended after {received} of {expected} octets")]
    Short {
        /// Octets received.
        received: u64,
        /// Octets that should have come.
        expected: u64,
    },
    /// The stream went on after its end.
    #[error("octets after the end of what was sent")]
    Long,
    /// The time limit passed.
    #[error("not done in time")]
    Timeout,
    /// The peer is no `mesh-traffic stream`, or reported a failure.
    #[error("the peer said: {0}")]
    Peer(String),
}

impl From<Mismatch> for Failure {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch.offset)
    }
}

impl Failure {
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Io(error) => of_io(error),
            Self::Mismatch(_) | Self::Long => Outcome::Mismatch,
            Self::Short { .. } => Outcome::Eof,
            Self::Timeout => Outcome::Timeout,
            Self::Peer(_) => Outcome::Other,
        }
    }
}

fn of_io(error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Outcome::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => Outcome::Reset,
        io::ErrorKind::TimedOut => Outcome::Timeout,
        io::ErrorKind::UnexpectedEof => Outcome::Eof,
        io::ErrorKind::PermissionDenied => Outcome::Eperm,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Outcome::Unreachable,
        _ => Outcome::Other,
    }
}

/// The outcome of a result.
pub(crate) fn of<T>(result: &Result<T, Failure>) -> Outcome {
    result.as_ref().err().map_or(Outcome::Ok, Failure::outcome)
}
