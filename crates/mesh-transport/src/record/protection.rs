//! One direction's key, nonce and sequence number.

use std::ops::Range;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;

use super::{ContentType, HEADER, MAX_CONTENT, MAX_RECORD, OVERHEAD, RecordError, TAG};

/// The header of every protected record: application data, TLS 1.2's version for the sake of middleboxes.
const OUTER: [u8; 3] = [ContentType::ApplicationData as u8, 3, 3];

/// What protects one direction.
pub(super) struct Protection {
    key: LessSafeKey,
    iv: [u8; aead::NONCE_LEN],
    sequence: u64,
}

impl Protection {
    pub(super) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Aead),
        };
        // rustls keeps 32 bytes for every key; the algorithm says how many count.
        let key = key.as_ref().get(..algorithm.key_len()).ok_or(RecordError::Aead)?;
        let key = UnboundKey::new(algorithm, key).map_err(|_| RecordError::Aead)?;
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::Aead)?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// How many records this key has protected.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Seals `record`, whose content stands between the header and the room for content type and tag.
    pub(super) fn seal(&mut self, kind: ContentType, record: &mut [u8]) -> Result<(), RecordError> {
        let body = record.len().checked_sub(HEADER).ok_or(RecordError::Length(record.len()))?;
        if !(1 + TAG..=MAX_CONTENT + 1 + TAG).contains(&body) {
            return Err(RecordError::Length(record.len()));
        }
        let nonce = self.next_nonce()?;
        let length = u16::try_from(body).map_err(|_| RecordError::Length(body))?.to_be_bytes();
        let header = [OUTER[0], OUTER[1], OUTER[2], length[0], length[1]];
        record[..HEADER].copy_from_slice(&header);
        let (inner, room) = record[HEADER..].split_at_mut(body - TAG);
        if let Some(last) = inner.last_mut() {
            *last = kind as u8;
        }
        let tag =
            self.key.seal_in_place_separate_tag(nonce, Aad::from(header), inner).map_err(|_| RecordError::Aead)?;
        room.copy_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens the record at the start of `input`: its type, where its content is now, and how many bytes it took.
    /// `None` when more bytes are needed.
    pub(super) fn open(&mut self, input: &mut [u8]) -> Result<Option<Record>, RecordError> {
        let Some(length) = record_length(input)? else { return Ok(None) };
        let Some(record) = input.get_mut(..length) else { return Ok(None) };
        let nonce = self.next_nonce()?;
        let (header, body) = record.split_at_mut(HEADER);
        let plain =
            self.key.open_in_place(nonce, Aad::from(&*header), body).map_err(|_| RecordError::Authentication)?;
        // Padding is zeros behind the content type (RFC 8446, section 5.4).
        let Some(end) = plain.iter().rposition(|&byte| byte != 0) else {
            return Err(RecordError::Type(0));
        };
        if end > MAX_CONTENT {
            return Err(RecordError::Length(end));
        }
        let kind = match plain[end] {
            21 => ContentType::Alert,
            22 => ContentType::Handshake,
            23 => ContentType::ApplicationData,
            other => return Err(RecordError::Type(other)),
        };
        Ok(Some(Record { kind, content: HEADER..HEADER + end, length }))
    }

    /// The nonce for the next record (RFC 8446, section 5.3); none is ever used twice with a key.
    fn next_nonce(&mut self) -> Result<Nonce, RecordError> {
        let mut nonce = self.iv;
        for (byte, sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        self.sequence = self.sequence.checked_add(1).ok_or(RecordError::Aead)?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// An opened record.
pub(super) struct Record {
    pub(super) kind: ContentType,
    /// Where the content stands in the input.
    pub(super) content: Range<usize>,
    /// Bytes that the record took on the wire.
    pub(super) length: usize,
}

/// The whole length of the record that `input` begins with, once its header is there.
fn record_length(input: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(header) = input.first_chunk::<HEADER>() else { return Ok(None) };
    if header[0] != OUTER[0] {
        return Err(RecordError::Type(header[0]));
    }
    let length = HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
    if (OVERHEAD..=MAX_RECORD).contains(&length) { Ok(Some(length)) } else { Err(RecordError::Length(length)) }
}
