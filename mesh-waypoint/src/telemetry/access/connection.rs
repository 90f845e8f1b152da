//! The line of a connection that nobody looks into: the fields that Istio's default JSON format has for one, and who it was between.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use mesh_core::{
    l7::field_value::Operator,
    telemetry::{
        filter::{Attributes, Number, Text},
        line_format::LineValue,
        value::{Peer, PeerAttribute},
    },
};
use mesh_metrics::{CONNECTION_LABELS, ConnectionLabels};

use super::{
    ends::Ends,
    format::{self, Values},
    json::{self, Moment, Object},
    line::milliseconds,
    trace_id,
};
use crate::{
    inbound::Arrival,
    upstream::{ClusterKey, Endpoint},
};

/// The metrics' labels as they stand in a line.
pub(in crate::telemetry) fn connection_fields(labels: &ConnectionLabels<String>) -> String {
    json::fields(CONNECTION_LABELS.into_iter().zip(labels.iter().map(String::as_str)))
}

/// A connection that is over, or was none.
pub(crate) struct EndedConnection<'a> {
    /// When it began.
    pub(crate) at: SystemTime,
    /// What it came by.
    pub(crate) arrival: &'a Arrival,
    /// Where it was sent on to.
    pub(crate) cluster: Option<&'a ClusterKey>,
    /// Who took it.
    pub(crate) endpoint: Option<&'a Endpoint>,
    /// Bytes of the client.
    pub(crate) sent: u64,
    /// Bytes of the server.
    pub(crate) received: u64,
    /// How long it lived.
    pub(crate) duration: Duration,
    /// The response flags.
    pub(crate) flags: &'static str,
    /// How it ended: `closed` is as it should.
    pub(crate) end: &'static str,
    /// What went wrong.
    pub(crate) error: Option<&'a str>,
}

impl EndedConnection<'_> {
    /// What [`Self::end`] says where nothing went wrong.
    pub(crate) const CLOSED: &'static str = "closed";

    /// Who it was between.
    fn ends(&self) -> Ends<'_> {
        Ends { arrival: self.arrival, endpoint: self.endpoint }
    }

    /// Writes the line; `labels` are those of its metrics, as fields.
    pub(crate) fn write(&self, labels: &str, into: &mut String) {
        let mut line = Object::begin(into);
        line.text("target", Some("access"));
        line.shown("start_time", Some(Moment(self.at)));
        line.written(labels);
        line.number("bytes_received", self.sent);
        line.number("bytes_sent", self.received);
        line.number("duration", milliseconds(self.duration));
        line.shown("upstream_host", self.endpoint.map(Endpoint::address));
        line.shown("upstream_cluster", self.cluster);
        line.shown("downstream_remote_address", Some(self.arrival.client.address));
        line.text("requested_server_name", self.arrival.target.server_name());
        line.text("end", Some(self.end));
        line.text("error", self.error);
        if let Some(trace) = self.arrival.trace {
            line.shown("trace_id", Some(trace_id(trace)));
        }
        line.end();
    }
}

impl Values for EndedConnection<'_> {
    fn put(&self, value: &LineValue, hostname: &str, into: &mut String) {
        match value {
            LineValue::Operator(Operator::Endpoint) => {
                self.endpoint.into_iter().for_each(|endpoint| format::put(endpoint.address(), into));
            }
            LineValue::Operator(Operator::Start(form)) => format::put_start(self.at, *form, into),
            LineValue::Operator(Operator::Status) => into.push('0'),
            LineValue::Operator(operator) => {
                format::put_of_arrival(operator, self.arrival, hostname, into);
            }
            LineValue::Start(parts) => format::moment(self.at, parts, into),
            LineValue::Flags => into.push_str(self.flags),
            LineValue::Termination => into.push_str(self.error.unwrap_or_default()),
            LineValue::Received => format::put(self.sent, into),
            LineValue::Sent => format::put(self.received, into),
            LineValue::Duration => format::put(milliseconds(self.duration), into),
            LineValue::Cluster => self.cluster.into_iter().for_each(|cluster| format::put(cluster, into)),
            LineValue::Trace => self.arrival.trace.into_iter().for_each(|trace| format::put(trace_id(trace), into)),
            LineValue::Details
            | LineValue::AnsweredAfter
            | LineValue::Route
            | LineValue::GrpcStatus
            | LineValue::Nothing => {}
        }
    }
}

impl Attributes for EndedConnection<'_> {
    fn number(&self, what: Number) -> Option<i64> {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        match what {
            Number::ResponseCode | Number::ResponseGrpcStatus => None,
            Number::RequestSize => Some(bytes(self.sent)),
            Number::ResponseSize => Some(bytes(self.received)),
            Number::SourcePort => Some(self.ends().source_port()),
            Number::DestinationPort => Some(self.ends().destination_port()),
        }
    }

    fn text(&self, what: &Text) -> Option<Cow<'_, str>> {
        self.ends().text(what)
    }

    fn mtls(&self) -> bool {
        self.ends().mtls()
    }

    fn failed(&self) -> bool {
        self.end != Self::CLOSED
    }

    fn peer(&self, peer: Peer, what: &PeerAttribute) -> Option<&str> {
        self.ends().peer(peer, what)
    }
}
