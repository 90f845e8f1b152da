//! HTTP/1.0 and HTTP/1.1: requests in order, and their responses in the same order.

mod head;
mod messages;

use std::{collections::VecDeque, time::Duration};

use self::{
    head::Method,
    messages::{Body, Chunk, Found, Messages},
};
use crate::{Exchange, Lost, Protocol, Sender, recognition};

/// Requests without a response that are remembered; clients that send more at once are not followed.
const MAX_PENDING: usize = 64;

/// Both directions of a connection.
#[derive(Debug, Default)]
pub(crate) struct Http1 {
    requests: Messages,
    responses: Messages,
    /// Requests whose responses are not complete, the oldest first.
    pending: VecDeque<Pending>,
    /// The response that is passing.
    status: Option<u16>,
    response_bytes: u64,
    /// What passes means nothing until a request begins.
    is_lost: bool,
    /// Not all bytes were shown: what cannot be followed may be for want of them.
    has_missed: bool,
}

#[derive(Debug)]
struct Pending {
    method: Method,
    began: Duration,
    bytes: u64,
}

impl Http1 {
    pub(crate) fn show(
        &mut self,
        sender: Sender,
        bytes: &[u8],
        at: Duration,
        done: &mut impl FnMut(Exchange),
    ) -> Result<(), Lost> {
        if sender == Sender::Client && recognition::begins_http1(bytes) {
            if self.requests.is_unseen() || self.responses.is_unseen() {
                self.lose_track();
            }
            self.is_lost = false;
        }
        match sender {
            _ if self.is_lost => Ok(()),
            Sender::Client => self.requests(bytes, at),
            Sender::Server => self.responses(bytes, at, done),
        }
    }

    /// Passes over bytes of a body that are not shown, but for the last ones.
    pub(crate) fn pass_over(
        &mut self,
        sender: Sender,
        (count, tail): (u64, &[u8]),
        at: Duration,
        done: &mut impl FnMut(Exchange),
    ) -> Result<(), Lost> {
        self.has_missed = true;
        if self.is_lost {
            return Ok(());
        }
        match sender {
            Sender::Client => {
                let passed = self.requests.pass_over(count, tail)?;
                if let Some(newest) = self.pending.back_mut() {
                    newest.bytes += passed;
                }
                self.requests(&[], at)
            }
            Sender::Server => {
                self.response_bytes += self.responses.pass_over(count, tail)?;
                self.responses(&[], at, done)
            }
        }
    }

    /// Forgets all that is under way.
    pub(crate) fn lose_track(&mut self) {
        *self = Self { is_lost: true, has_missed: true, ..Self::default() };
    }

    /// Whether there were bytes that were not shown.
    pub(crate) const fn has_missed(&self) -> bool {
        self.has_missed
    }

    pub(crate) fn end(mut self, at: Duration, done: &mut impl FnMut(Exchange)) {
        if let Some(pending) = self.pending.pop_front() {
            done(self.exchange(&pending, at));
        }
        self.status = None;
        self.response_bytes = 0;
        for pending in &self.pending {
            done(self.exchange(pending, at));
        }
    }

    fn requests(&mut self, mut bytes: &[u8], at: Duration) -> Result<(), Lost> {
        while let Some(found) = self.requests.next(&mut bytes)? {
            match found {
                Found::Head(found) => {
                    let head = head::request(found.bytes())?;
                    if self.pending.len() == MAX_PENDING {
                        return Err(Lost);
                    }
                    self.pending.push_back(Pending { method: head.method, began: at, bytes: 0 });
                    // Without either field there is no body (RFC 9112, section 6.3).
                    self.requests.expect(match head.fields {
                        fields if fields.chunked => Body::Chunked(Chunk::Size),
                        fields => Body::Length(fields.length.unwrap_or(0)),
                    });
                }
                // Of the newest request; its response may be complete already.
                Found::Data(count) => {
                    if let Some(newest) = self.pending.back_mut() {
                        newest.bytes += count;
                    }
                }
                Found::End => {}
            }
        }
        Ok(())
    }

    fn responses(&mut self, mut bytes: &[u8], at: Duration, done: &mut impl FnMut(Exchange)) -> Result<(), Lost> {
        while let Some(found) = self.responses.next(&mut bytes)? {
            match found {
                Found::Head(found) => self.response(found.bytes())?,
                Found::Data(count) => self.response_bytes += count,
                Found::End => {
                    // An interim response has no exchange of its own.
                    if self.status.is_some() {
                        let pending = self.pending.pop_front().ok_or(Lost)?;
                        done(self.exchange(&pending, at));
                        self.status = None;
                        self.response_bytes = 0;
                    }
                }
            }
        }
        Ok(())
    }

    fn response(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        let head = head::response(bytes)?;
        let request = self.pending.front().ok_or(Lost)?;
        let becomes_other = head.status == 101 || (request.method == Method::Connect && head.status / 100 == 2);
        if !becomes_other && head.status / 100 == 1 {
            self.responses.expect(Body::Length(0));
            return Ok(());
        }
        self.status = Some(head.status);
        let is_empty = request.method == Method::Head || matches!(head.status, 204 | 304);
        self.responses.expect(match head.fields {
            // From here on it is another protocol, both ways.
            _ if becomes_other => {
                self.requests.expect(Body::ToEnd);
                Body::ToEnd
            }
            _ if is_empty => Body::Length(0),
            fields if fields.chunked => Body::Chunked(Chunk::Size),
            fields => fields.length.map_or(Body::ToEnd, Body::Length),
        });
        Ok(())
    }

    fn exchange(&self, pending: &Pending, at: Duration) -> Exchange {
        Exchange {
            protocol: Protocol::Http,
            status: self.status,
            grpc_status: None,
            duration: at.saturating_sub(pending.began),
            request_bytes: pending.bytes,
            response_bytes: self.response_bytes,
        }
    }
}
