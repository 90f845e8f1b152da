//! What an endpoint's HTTP/2 connection begins with: its settings, which say whether streams of it may be another protocol's.

use std::{cell::Cell, rc::Rc};

use tokio::{io::AsyncRead, sync::Notify};
use tokio_util::io::InspectReader;

/// A frame's length, type, flags and stream (RFC 9113, section 4.1).
const FRAME_HEAD: usize = 9;

/// Whether a server's first frame, which is SETTINGS (RFC 9113, section 3.4), has come.
#[derive(Debug, Default)]
pub(crate) struct Greeting {
    is_over: Cell<bool>,
    over: Notify,
}

impl Greeting {
    /// Resolves once it has come, or never will.
    pub(crate) async fn over(&self) {
        while !self.is_over.get() {
            self.over.notified().await;
        }
    }

    fn end(&self) {
        self.is_over.set(true);
        self.over.notify_waiters();
    }
}

/// A stream of which it is told when the first frame has been read.
pub(super) type Greeted<S> = InspectReader<S, Box<dyn FnMut(&[u8])>>;

/// Tells of it by `greeting`.
pub(super) fn greeted<S: AsyncRead>(stream: S, greeting: Rc<Greeting>) -> Greeted<S> {
    let mut first = First { greeting, head: [0; FRAME_HEAD], read: 0 };
    InspectReader::new(stream, Box::new(move |octets| first.note(octets)))
}

/// What has been read of the first frame.
struct First {
    greeting: Rc<Greeting>,
    head: [u8; FRAME_HEAD],
    read: usize,
}

impl First {
    /// Whoever waits has its turn when the connection has looked at what it has read: all are on one thread.
    fn note(&mut self, octets: &[u8]) {
        if self.greeting.is_over.get() {
            return;
        }
        for (place, octet) in self.head.iter_mut().skip(self.read).zip(octets) {
            *place = *octet;
        }
        self.read += octets.len();
        let [first, second, third, ..] = self.head;
        let length = u32::from_be_bytes([0, first, second, third]) as usize;
        let is_whole = self.read >= FRAME_HEAD && self.read - FRAME_HEAD >= length;
        if is_whole || octets.is_empty() {
            self.greeting.end();
        }
    }
}

impl Drop for First {
    fn drop(&mut self) {
        self.greeting.end();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn settings_have_come_once_their_frame_is_whole() {
        // SETTINGS with one parameter of six octets.
        let frame = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1];
        let greeting = Rc::<Greeting>::default();
        let mut stream = greeted(&frame[..], greeting.clone());
        for read in 1..=frame.len() {
            stream.read_u8().await.expect("an octet");
            assert_eq!(greeting.is_over.get(), read == frame.len(), "after {read} octets");
        }
        let gone = Rc::<Greeting>::default();
        drop(greeted(&frame[..], gone.clone()));
        gone.over().await;
    }
}
