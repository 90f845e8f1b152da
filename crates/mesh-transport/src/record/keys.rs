//! Both directions' keys, their renewal, and the messages that TLS itself sends after the handshake.

use std::ops::Range;

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};

use super::protection::Protection;
use super::{ContentType, OVERHEAD, RecordError};

/// Records that a key protects before it is replaced: half of AES-GCM's limit of 2^24.5 (RFC 8446, section 5.5).
const UPDATE_AFTER: u64 = 1 << 23;

/// KeyUpdates that a peer may send with no application data between them: each costs us more than it costs the peer.
const UPDATES_IN_A_ROW: u8 = 32;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const CLOSE_NOTIFY: u8 = 0;

/// What rustls keeps of a connection to derive later keys from.
pub(crate) enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Kernel {
    fn next_tx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Client(kernel) => kernel.update_tx_secret(),
            Self::Server(kernel) => kernel.update_tx_secret(),
        }
    }

    fn next_rx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Client(kernel) => kernel.update_rx_secret(),
            Self::Server(kernel) => kernel.update_rx_secret(),
        }
    }
}

/// The keys of an established connection.
pub(crate) struct Keys {
    tx: Protection,
    rx: Protection,
    kernel: Kernel,
    /// The peer asked for new keys from us.
    update_asked: bool,
    update_after: u64,
    updates_in_a_row: u8,
    /// Bytes of a NewSessionTicket that are still to come and of no use here.
    ticket_rest: usize,
}

/// What the start of the input holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// Not a whole record yet.
    Incomplete,
    /// Application data.
    Data {
        /// Where it stands in the input.
        content: Range<usize>,
        /// Bytes of input that are done with.
        length: usize,
    },
    /// A message of TLS's own, dealt with.
    Handled {
        /// Bytes of input that are done with.
        length: usize,
    },
    /// The peer will send no more (close_notify).
    Closed,
}

impl Keys {
    pub(crate) fn new(secrets: ExtractedSecrets, kernel: Kernel) -> Result<Self, RecordError> {
        Ok(Self {
            tx: Protection::new(secrets.tx)?,
            rx: Protection::new(secrets.rx)?,
            kernel,
            update_asked: false,
            update_after: UPDATE_AFTER,
            updates_in_a_row: 0,
            ticket_rest: 0,
        })
    }

    /// Seals application data in place; see [`OVERHEAD`] for the room around it.
    pub(crate) fn seal(&mut self, record: &mut [u8]) -> Result<(), RecordError> {
        self.tx.seal(ContentType::ApplicationData, record)
    }

    /// A KeyUpdate to send before the next record, when one is due. Later records are sealed with the new key.
    pub(crate) fn key_update(&mut self) -> Result<Option<[u8; OVERHEAD + 5]>, RecordError> {
        if !self.update_asked && self.tx.sequence() < self.update_after {
            return Ok(None);
        }
        let mut record = [0; OVERHEAD + 5];
        // KeyUpdate of one byte: update_not_requested (RFC 8446, section 4.6.3).
        record[5..10].copy_from_slice(&[KEY_UPDATE, 0, 0, 1, 0]);
        self.tx.seal(ContentType::Handshake, &mut record)?;
        self.tx = Protection::new(self.kernel.next_tx().map_err(RecordError::Keys)?)?;
        self.update_asked = false;
        Ok(Some(record))
    }

    /// The alert that ends our direction.
    pub(crate) fn close_notify(&mut self) -> Result<[u8; OVERHEAD + 2], RecordError> {
        let mut record = [0; OVERHEAD + 2];
        record[5..7].copy_from_slice(&[1, CLOSE_NOTIFY]);
        self.tx.seal(ContentType::Alert, &mut record)?;
        Ok(record)
    }

    /// Opens the record at the start of `input` in place.
    pub(crate) fn open(&mut self, input: &mut [u8]) -> Result<Opened, RecordError> {
        let Some(record) = self.rx.open(input)? else { return Ok(Opened::Incomplete) };
        let (content, length) = (record.content, record.length);
        match record.kind {
            // A ticket may span records, but nothing may come between its parts (RFC 8446, section 5.1).
            ContentType::ApplicationData if self.ticket_rest == 0 => {
                self.updates_in_a_row = 0;
                Ok(Opened::Data { content, length })
            }
            ContentType::ApplicationData => Err(RecordError::Type(ContentType::ApplicationData as u8)),
            ContentType::Handshake => {
                self.handshake(&input[content])?;
                Ok(Opened::Handled { length })
            }
            ContentType::Alert => match input[content] {
                [_, CLOSE_NOTIFY] => Ok(Opened::Closed),
                [_, alert] => Err(RecordError::Alert(alert)),
                _ => Err(RecordError::Length(length)),
            },
        }
    }

    /// Messages of TLS after the handshake: tickets, which we have no use for, and KeyUpdate.
    fn handshake(&mut self, mut content: &[u8]) -> Result<(), RecordError> {
        if content.is_empty() {
            return Err(RecordError::Length(0));
        }
        loop {
            let skipped = self.ticket_rest.min(content.len());
            self.ticket_rest -= skipped;
            content = &content[skipped..];
            match *content {
                [] => return Ok(()),
                // KeyUpdate has to end its record, as the next one has another key.
                [KEY_UPDATE, 0, 0, 1, asked @ (0 | 1)] if self.updates_in_a_row < UPDATES_IN_A_ROW => {
                    self.updates_in_a_row += 1;
                    self.rx = Protection::new(self.kernel.next_rx().map_err(RecordError::Keys)?)?;
                    self.update_asked |= asked == 1;
                    return Ok(());
                }
                [NEW_SESSION_TICKET, a, b, c, ref rest @ ..] if matches!(self.kernel, Kernel::Client(_)) => {
                    self.ticket_rest = u32::from_be_bytes([0, a, b, c]) as usize;
                    content = rest;
                }
                [other, ..] => return Err(RecordError::Handshake(other)),
            }
        }
    }
}

/// What a peer could send and we never do.
#[cfg(test)]
impl Keys {
    pub(super) fn update_every(&mut self, records: u64) {
        self.update_after = records;
    }

    pub(super) fn renew_tx(&mut self) {
        self.tx = Protection::new(self.kernel.next_tx().expect("secret")).expect("key");
    }

    pub(super) fn handshake_record(&mut self, content: &[u8]) -> Vec<u8> {
        self.other_record(ContentType::Handshake, content)
    }

    pub(super) fn alert_record(&mut self, content: &[u8]) -> Vec<u8> {
        self.other_record(ContentType::Alert, content)
    }

    fn other_record(&mut self, kind: ContentType, content: &[u8]) -> Vec<u8> {
        let mut record = vec![0; content.len() + OVERHEAD];
        record[5..][..content.len()].copy_from_slice(content);
        self.tx.seal(kind, &mut record).expect("sealed");
        record
    }
}
