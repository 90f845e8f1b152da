//! What the kernel shows of direct connections' payload, by which their requests are counted.

use std::{io, path::Path, time::Duration};

use mesh_abi::{
    SignalHead, map_names,
    signal::{BEGINNING, BY_CLIENT, FRAMES},
};
use mesh_signals::Sender;

use super::{
    direct::DirectId,
    ring::{self, Ring, RingError},
};

/// One segment of a direct connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectSignal<'a> {
    /// Which connection.
    pub id: DirectId,
    /// When it left, on the clock of [`super::now`].
    pub at: Duration,
    /// Who sent it.
    pub sender: Sender,
    /// Its sequence number.
    pub sequence: u32,
    /// Octets of payload that it has.
    pub length: u32,
    /// What is shown of its payload.
    pub shown: Shown<'a>,
}

/// What the kernel shows of a segment's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown<'a> {
    /// Its beginning, and its last octets, where that is not all of it.
    Ends {
        /// The beginning.
        first: &'a [u8],
        /// The last octets.
        last: &'a [u8],
    },
    /// HTTP/2 but for the payloads of frames that have no part in a header block; of what was not sent before.
    Frames(&'a [u8]),
    /// Nothing, nor of any later segment of its sender.
    NoMore,
}

/// The segments that the kernel shows. A ring buffer has one reader: there may be one of these.
pub struct DirectSignals(Ring);

impl DirectSignals {
    /// Opens the pinned ring buffer in `maps`; in a runtime.
    ///
    /// # Errors
    /// It is not there, or the runtime cannot watch it.
    pub(super) fn open(maps: &Path) -> Result<Self, RingError> {
        Ring::open(maps, map_names::SIGNALS).map(Self)
    }

    /// Waits until so much has gathered that it should be read; less may be there at any time.
    ///
    /// # Errors
    /// The runtime is ending.
    pub async fn ready(&mut self) -> io::Result<()> {
        self.0.ready().await
    }

    /// Takes what is there now, `most` of it.
    pub fn drain(&mut self, most: usize, mut take: impl FnMut(&DirectSignal<'_>)) {
        for _ in 0..most {
            let taken = self.0.take(|record| {
                if let Some((head, shown)) = ring::split::<SignalHead>(record) {
                    take(&signal(&head, shown));
                }
            });
            if taken.is_none() {
                return;
            }
        }
    }
}

fn signal<'a>(head: &'a SignalHead, shown: &'a [u8]) -> DirectSignal<'a> {
    DirectSignal {
        id: DirectId { cookie: head.cookie, isn: head.isn },
        at: Duration::from_nanos(head.at_ns),
        sender: if head.sender == BY_CLIENT { Sender::Client } else { Sender::Server },
        sequence: head.sequence,
        length: head.length,
        shown: match head.form {
            BEGINNING => Shown::Ends { first: shown, last: &head.tail },
            FRAMES => Shown::Frames(shown),
            _ => Shown::NoMore,
        },
    }
}
