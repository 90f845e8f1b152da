//! Requests and responses, recognised in the bytes of a connection that somebody else carries.
//!
//! An [`Observer`] is shown what passes in each direction and tells of each [`Exchange`] at its end: HTTP/1.1, HTTP/2 and gRPC.
//! It holds no byte back, changes none, and decides nothing: what it does not understand, or what would cost more than its bounds
//! allow, makes it look away for the rest of the connection. Pure: the time is an argument.
#![forbid(unsafe_code)]

mod http1;
mod http2;
mod recognition;

use std::time::Duration;

use crate::{http1::Http1, http2::Http2, recognition::Recognition};

/// One request and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// What it was spoken in.
    pub protocol: Protocol,
    /// The response's status; none where the connection or stream ended without one.
    pub status: Option<u16>,
    /// gRPC's own status, where the response has one.
    pub grpc_status: Option<u16>,
    /// From the request's head to the response's end.
    pub duration: Duration,
    /// Bytes of the request's body that had passed by then.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
}

/// What an exchange was spoken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP of any version.
    Http,
    /// gRPC over HTTP/2.
    Grpc,
}

/// It cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The side that has connected.
    Client,
    /// The side that was connected to.
    Server,
}

/// Looks at one connection.
#[derive(Debug, Default)]
pub struct Observer(State);

#[derive(Debug)]
enum State {
    Undecided(Recognition),
    Http1(Box<Http1>),
    Http2(Box<Http2>),
    /// Nothing to be seen.
    Blind,
}

impl Default for State {
    fn default() -> Self {
        Self::Undecided(Recognition::default())
    }
}

impl Observer {
    /// One that does not look.
    #[must_use]
    pub const fn blind() -> Self {
        Self(State::Blind)
    }

    /// Whether it still looks. Once it does not, it never will.
    #[must_use]
    pub const fn looks(&self) -> bool {
        !matches!(self.0, State::Blind)
    }

    /// Shows bytes that pass, in order of each direction. `at` is the time since any fixed moment; `done` is called with each
    /// exchange that is complete with them.
    pub fn show(&mut self, sender: Sender, bytes: &[u8], at: Duration, done: &mut impl FnMut(Exchange)) {
        let followed = match &mut self.0 {
            State::Blind => return,
            State::Http1(http1) => match http1.show(sender, bytes, at, done) {
                Err(Lost) if http1.has_missed() => {
                    http1.lose_track();
                    Ok(())
                }
                followed => followed,
            },
            State::Http2(http2) => http2.show(sender, bytes, at, done),
            State::Undecided(_) => return self.recognise(sender, bytes, at, done),
        };
        if followed.is_err() {
            self.0 = State::Blind;
        }
    }

    /// Shows bytes of HTTP/2 that pass, in order of each direction: `length` of them, of which `shown` are all but the payloads of
    /// frames that have no part in a header block (RFC 9113, section 4.3).
    pub fn show_frames(
        &mut self,
        sender: Sender,
        (shown, length): (&[u8], usize),
        at: Duration,
        done: &mut impl FnMut(Exchange),
    ) {
        if let State::Undecided(recognition) = &mut self.0
            && (sender == Sender::Client || recognition::begins_http2_of_server(shown))
        {
            let held = recognition.take();
            self.0 = State::Http2(Box::default());
            self.show(Sender::Client, &held, at, done);
        }
        let followed = match &mut self.0 {
            State::Http2(http2) => http2.show_frames(sender, (shown, length), at, done),
            State::Http1(_) | State::Undecided(_) | State::Blind => Err(Lost),
        };
        if followed.is_err() {
            self.0 = State::Blind;
        }
    }

    /// Shows the end of bytes that passed unseen, `count` of them, right after what was shown last of that direction. What cannot be
    /// followed over them is left out; HTTP/1 is followed again from a request on that begins what is shown next.
    pub fn pass_over(
        &mut self,
        sender: Sender,
        (count, tail): (u64, &[u8]),
        at: Duration,
        done: &mut impl FnMut(Exchange),
    ) {
        let followed = match &mut self.0 {
            State::Http1(http1) => {
                http1.pass_over(sender, (count, tail), at, done).unwrap_or_else(|Lost| http1.lose_track());
                Ok(())
            }
            // The next frame may have begun in them.
            State::Http2(_) | State::Undecided(_) | State::Blind => Err(Lost),
        };
        if followed.is_err() {
            self.0 = State::Blind;
        }
    }

    /// An unknown number of bytes passed unseen, in either direction. HTTP/1 is followed again from a request on that begins what is
    /// shown next.
    pub fn miss(&mut self) {
        match &mut self.0 {
            State::Http1(http1) => http1.lose_track(),
            // Neither frames nor compressed fields have a meaning without those before.
            state => *state = State::Blind,
        }
    }

    /// The connection has ended: what was under way is told of, as far as it came.
    pub fn end(&mut self, at: Duration, done: &mut impl FnMut(Exchange)) {
        match std::mem::replace(&mut self.0, State::Blind) {
            State::Http1(http1) => http1.end(at, done),
            State::Http2(http2) => http2.end(at, done),
            State::Undecided(_) | State::Blind => {}
        }
    }

    fn recognise(&mut self, sender: Sender, bytes: &[u8], at: Duration, done: &mut impl FnMut(Exchange)) {
        let State::Undecided(recognition) = &mut self.0 else { return };
        let found = match sender {
            Sender::Client => recognition.show(bytes),
            // Servers of HTTP/2 need not wait for their clients; whoever else speaks first speaks no HTTP.
            Sender::Server if recognition::begins_http2_of_server(bytes) => Some(recognition::Kind::Http2),
            Sender::Server => Some(recognition::Kind::Other),
        };
        let Some(kind) = found else { return };
        let held = recognition.take();
        self.0 = match kind {
            recognition::Kind::Http1 => State::Http1(Box::default()),
            recognition::Kind::Http2 => State::Http2(Box::default()),
            recognition::Kind::Other => State::Blind,
        };
        self.show(Sender::Client, &held, at, done);
        self.show(sender, bytes, at, done);
    }
}
