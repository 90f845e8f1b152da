//! HTTP/1.1 as a client speaks it (RFC 9112): the octets of a request, and what the octets of a server mean.
//!
//! Nothing here reads, writes or waits. What has more than one reading has none: it is refused, and nobody guesses.
#![forbid(unsafe_code)]

mod answer;
mod body;
mod chunked;
mod framing;
mod request;

pub use answer::{Answer, Answers, HeadError, MAX_HEAD, MAX_INTERIM};
pub use body::{BodyError, Decoded, Decoder};
pub use chunked::{MAX_EXTENSIONS, MAX_TRAILERS};
pub use framing::Framing;
pub use request::{Encoder, LengthError, Outgoing, write_head};

/// Fields of a head, or of trailers.
const MAX_FIELDS: usize = 100;
