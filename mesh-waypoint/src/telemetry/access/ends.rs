//! The two ends of what came in, as filters and labels ask for them.

use std::borrow::Cow;

use mesh_core::{
    SpiffeId,
    telemetry::{
        filter::Text,
        value::{Peer, PeerAttribute},
    },
};

use crate::{inbound::Arrival, upstream::Endpoint};

/// Who sent something, and who got it.
#[derive(Clone, Copy)]
pub(crate) struct Ends<'a> {
    /// What it came by.
    pub(crate) arrival: &'a Arrival,
    /// Who got it, where somebody has.
    pub(crate) endpoint: Option<&'a Endpoint>,
}

impl<'a> Ends<'a> {
    /// The client's port.
    pub(crate) fn source_port(self) -> i64 {
        self.arrival.client.address.port().into()
    }

    /// The port that it was sent to.
    pub(crate) fn destination_port(self) -> i64 {
        self.arrival.target.port().into()
    }

    /// What is known whatever was carried; nothing of a request's head.
    pub(crate) fn text(self, what: &Text) -> Option<Cow<'a, str>> {
        let client = &self.arrival.client;
        match what {
            Text::SourceAddress => Some(client.address.to_string().into()),
            Text::UpstreamAddress => Some(self.endpoint?.address().to_string().into()),
            Text::PeerIdentity => Some(client.identity.as_ref()?.as_str().into()),
            Text::ServerName => Some(self.arrival.target.server_name()?.into()),
            _ => None,
        }
    }

    /// Whether the client has proven who it is.
    pub(crate) fn mtls(self) -> bool {
        self.arrival.client.identity.is_some()
    }

    /// What is known of one of both workloads.
    pub(crate) fn peer(self, peer: Peer, what: &PeerAttribute) -> Option<&'a str> {
        let client = &self.arrival.client;
        let workload = match peer {
            Peer::Source => client.workload.as_deref(),
            Peer::Destination => self.endpoint.and_then(|endpoint| endpoint.workload.as_deref()),
        };
        match (workload, peer, what) {
            (Some(workload), ..) => what.of(workload),
            // Who is no workload that is known here has its identity.
            (None, Peer::Source, PeerAttribute::Principal) => client.identity.as_ref().map(SpiffeId::as_str),
            (None, Peer::Source, PeerAttribute::Namespace) => client.identity.as_ref().map(SpiffeId::namespace),
            (None, ..) => None,
        }
    }
}
