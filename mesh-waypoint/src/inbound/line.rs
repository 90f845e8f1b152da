//! The line of a connection that nobody looks into, where Telemetry has one.

use std::{borrow::Cow, rc::Rc};

use mesh_core::telemetry::{
    filter::{Number, Text, Told},
    value::{Peer, PeerAttribute},
};

use super::Arrival;
use crate::{telemetry::peer_of, upstream::Endpoint, worker::Worker};

/// A connection that is over, or was none.
pub(super) struct Line<'a> {
    pub(super) arrival: &'a Arrival,
    /// Where it went.
    pub(super) endpoint: Option<&'a Endpoint>,
    /// Bytes of the client, and of the server, where they were counted.
    pub(super) bytes: Option<(u64, u64)>,
}

impl Line<'_> {
    /// Whether there is to be one.
    pub(super) fn is_wanted(&self, worker: &Rc<Worker>) -> bool {
        let (snapshot, generation) = worker.snapshot();
        let told = worker.telling.of(&worker.shared, &worker.listeners(), (&snapshot, generation), self.arrival);
        told.logs && told.choice.admits(self, fastrand::u64(..))
    }
}

impl Told for Line<'_> {
    fn number(&self, what: Number) -> Option<i64> {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        match what {
            Number::ResponseCode | Number::ResponseGrpcStatus => None,
            Number::RequestSize => self.bytes.map(|(sent, _)| bytes(sent)),
            Number::ResponseSize => self.bytes.map(|(_, received)| bytes(received)),
            Number::SourcePort => Some(self.arrival.client.address.port().into()),
            Number::DestinationPort => Some(self.arrival.target.port().into()),
        }
    }

    fn text(&self, what: &Text) -> Option<Cow<'_, str>> {
        let client = &self.arrival.client;
        match what {
            Text::SourceAddress => Some(client.address.to_string().into()),
            Text::UpstreamAddress => Some(self.endpoint?.address().to_string().into()),
            Text::PeerIdentity => Some(client.identity.as_ref()?.as_str().into()),
            Text::ServerName => Some(self.arrival.target.server_name()?.into()),
            _ => None,
        }
    }

    fn mtls(&self) -> bool {
        self.arrival.client.identity.is_some()
    }

    fn failed(&self) -> bool {
        self.bytes.is_none()
    }

    fn peer(&self, peer: Peer, what: &PeerAttribute) -> Option<&str> {
        peer_of(self.arrival, self.endpoint, peer, what)
    }
}
