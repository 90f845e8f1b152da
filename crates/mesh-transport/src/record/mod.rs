//! TLS 1.3 records after the handshake (RFC 8446, section 5), sealed and opened in the buffer that they travel in.
//!
//! rustls shakes hands and hands over the traffic secrets; this module does nothing but protect records with them,
//! follow KeyUpdate, and refuse whatever does not belong after a handshake.

mod keys;
mod protection;

pub(crate) use keys::{Kernel, Keys, Opened};

/// Bytes before the encrypted part: type, version, length.
pub(crate) const HEADER: usize = 5;
/// Bytes of a record beyond its content: header, content type, tag.
pub(crate) const OVERHEAD: usize = HEADER + 1 + TAG;
/// The most content that a record carries (RFC 8446, section 5.1).
pub(crate) const MAX_CONTENT: usize = 1 << 14;
/// The most bytes that a record may have on the wire (RFC 8446, section 5.2).
pub(crate) const MAX_RECORD: usize = HEADER + MAX_CONTENT + 256;

/// Bytes of every AEAD's tag in TLS 1.3.
const TAG: usize = 16;

/// What a record carries (RFC 8446, appendix B.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentType {
    Alert = 21,
    Handshake = 22,
    ApplicationData = 23,
}

/// Why the records cannot go on. The connection has to be closed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// A record's header is none of TLS 1.3 after the handshake.
    #[error("unexpected record of type {0} after the handshake")]
    Type(u8),
    /// A record is longer than TLS allows, or too short to be one.
    #[error("a record of {0} bytes is outside of TLS's limits")]
    Length(usize),
    /// The tag does not match: the bytes were changed, lost or repeated.
    #[error("a record failed authentication")]
    Authentication,
    /// A handshake message that does not belong after the handshake.
    #[error("unexpected handshake message of type {0} after the handshake")]
    Handshake(u8),
    /// The peer gave up with an alert (RFC 8446, section 6).
    #[error("the peer sent alert {0}")]
    Alert(u8),
    /// rustls did not give keys.
    #[error("no keys: {0}")]
    Keys(rustls::Error),
    /// The AEAD refused a key or a length.
    #[error("the AEAD refused its input")]
    Aead,
}

#[cfg(test)]
mod tests;
