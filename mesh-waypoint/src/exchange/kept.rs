//! A body whose length nobody has said, on its way: what has come of it is kept while that is short, to be sent again.

use std::{
    cell::{Cell, RefCell},
    mem::replace,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;

use super::{
    body::{MAX_HELD, RequestError, poll_client},
    ledger::Ledger,
};

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Coming,
    Whole,
    /// It became too long, or broke off: what has come is not kept any more.
    Lost,
}

/// A client's body, and what has come of it.
struct Kept {
    incoming: RefCell<Incoming>,
    so_far: RefCell<Vec<u8>>,
    trailers: RefCell<Option<HeaderMap>>,
    progress: Cell<Progress>,
    /// Whose turn it is to send it.
    turn: Cell<u32>,
}

/// One attempt's view of it: what has come already, and then the rest as it comes. Only the last one that was taken sends.
pub(super) struct Turn {
    kept: Rc<Kept>,
    number: u32,
    /// What has come already is still to be sent.
    is_behind: bool,
    /// The trailers have been sent.
    has_told: bool,
}

impl Turn {
    /// The client's body, of which that has been read.
    pub(super) fn first(incoming: Incoming, begun: Option<&Bytes>) -> Self {
        let so_far = begun.map_or_else(Vec::new, |begun| begun.to_vec());
        let kept = Kept {
            incoming: RefCell::new(incoming),
            so_far: RefCell::new(so_far),
            trailers: RefCell::default(),
            progress: Cell::new(Progress::Coming),
            turn: Cell::new(0),
        };
        Self { kept: Rc::new(kept), number: 0, is_behind: true, has_told: false }
    }

    /// The next attempt's.
    pub(super) fn next(&self) -> Self {
        let number = self.kept.turn.get() + 1;
        self.kept.turn.set(number);
        Self { kept: self.kept.clone(), number, is_behind: true, has_told: false }
    }

    /// Whether it can be sent, from its beginning.
    pub(super) fn is_there(&self) -> bool {
        self.kept.progress.get() != Progress::Lost
    }

    /// Whether more is to come from the client.
    pub(super) fn is_coming(&self) -> bool {
        self.kept.progress.get() == Progress::Coming
    }

    /// Whether no later one was taken.
    pub(super) fn is_last(&self) -> bool {
        self.number == self.kept.turn.get()
    }

    /// All of it, once it has come.
    pub(super) fn whole(&self) -> Option<Bytes> {
        let is_whole = self.kept.progress.get() == Progress::Whole;
        is_whole.then(|| Bytes::copy_from_slice(&self.kept.so_far.borrow()))
    }

    pub(super) fn poll(
        &mut self,
        ledger: Option<&Ledger>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestError>>> {
        let kept = &self.kept;
        if !self.is_last() {
            return Poll::Ready(Some(Err(RequestError::SentAgain)));
        }
        if replace(&mut self.is_behind, false) && !kept.so_far.borrow().is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&kept.so_far.borrow())))));
        }
        if kept.progress.get() == Progress::Whole {
            let trailers = kept.trailers.borrow().clone().filter(|_| !replace(&mut self.has_told, true));
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let mut incoming = kept.incoming.borrow_mut();
        let frame = ready!(poll_client(&mut incoming, ledger, cx));
        self.has_told |= kept.note(frame.as_ref(), incoming.is_end_stream());
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let kept = &self.kept;
        let has_sent = !self.is_behind || kept.so_far.borrow().is_empty();
        has_sent
            && match kept.progress.get() {
                Progress::Whole => self.has_told || kept.trailers.borrow().is_none(),
                Progress::Coming | Progress::Lost => kept.incoming.borrow().is_end_stream(),
            }
    }
}

impl Kept {
    /// Keeps what has come, within the bound. Whether that were the trailers.
    fn note(&self, frame: Option<&Result<Frame<Bytes>, RequestError>>, is_end: bool) -> bool {
        if self.progress.get() == Progress::Lost {
            return false;
        }
        let trailers = match frame {
            Some(Err(_)) => return self.lose(),
            Some(Ok(frame)) => {
                let data = frame.data_ref().map_or(&[][..], |data| data);
                let mut so_far = self.so_far.borrow_mut();
                if so_far.len() + data.len() > usize::try_from(MAX_HELD).unwrap_or(usize::MAX) {
                    drop(so_far);
                    return self.lose();
                }
                so_far.extend_from_slice(data);
                frame.trailers_ref()
            }
            None => None,
        };
        if let Some(trailers) = trailers {
            self.trailers.replace(Some(trailers.clone()));
        }
        if frame.is_none() || trailers.is_some() || is_end {
            self.progress.set(Progress::Whole);
        }
        trailers.is_some()
    }

    fn lose(&self) -> bool {
        self.progress.set(Progress::Lost);
        self.so_far.take();
        false
    }
}
