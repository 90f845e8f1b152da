//! The line itself: the fields of Istio's default JSON format under their names, and who it was between.

use std::{borrow::Cow, time::Duration};

use http::HeaderValue;
use mesh_core::{
    TraceContext,
    l7::{Rule, field_value::Operator},
    telemetry::{
        self,
        filter::{Number, Text},
        line_format::LineValue,
        value::{Peer, PeerAttribute},
    },
};

use super::{
    NotedHead,
    ends::Ends,
    field,
    format::{self, Values},
    json::{self, Moment, Object},
    protocol, text, trace_id,
};
use mesh_metrics::{REQUEST_LABELS, RequestLabels};

use crate::{
    inbound::Arrival,
    upstream::{ClusterKey, Endpoint},
};

/// The metrics' labels that the line has among Istio's own fields.
const ISTIOS: [&str; 2] = ["response_code", "response_flags"];

/// The metrics' labels as they stand in a line: all but those that it has anyway.
pub(in crate::telemetry) fn label_fields(labels: &RequestLabels) -> String {
    let all = REQUEST_LABELS.into_iter().zip(labels.iter().map(String::as_str));
    json::fields(all.filter(|(name, _)| !ISTIOS.contains(name)))
}

/// A request that is over.
pub(crate) struct Ended<'a> {
    /// Of its head.
    pub(crate) noted: &'a NotedHead,
    /// What it came by.
    pub(crate) arrival: &'a Arrival,
    /// The status; 0 where there was no answer.
    pub(crate) status: u16,
    /// gRPC's status, where there is one.
    pub(crate) grpc: Option<u16>,
    /// The response flags.
    pub(crate) flags: &'static str,
    /// Why the answer is what it is, in Envoy's words.
    pub(crate) details: &'static str,
    /// The policy that refused it, in words.
    pub(crate) policy: Option<&'a str>,
    /// Whom the request's token is of.
    pub(crate) request_principal: Option<&'a str>,
    /// Why its token is not believed.
    pub(crate) token_refused: Option<&'a str>,
    /// Bytes of the request's body.
    pub(crate) sent: u64,
    /// Bytes of the response's body.
    pub(crate) received: u64,
    /// How long it took.
    pub(crate) duration: Duration,
    /// How long the answer's head took.
    pub(crate) answered_after: Option<Duration>,
    /// Who answered.
    pub(crate) endpoint: Option<&'a Endpoint>,
    /// Where it was sent on to.
    pub(crate) cluster: Option<&'a ClusterKey>,
    /// The rule that it belongs to.
    pub(crate) rule: Option<&'a Rule>,
    /// `x-request-id`
    pub(crate) request_id: Option<&'a HeaderValue>,
    /// The place of its span.
    pub(crate) trace: Option<TraceContext>,
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Ended<'_> {
    /// Writes the line; `labels` are those of its metrics, as fields.
    pub(crate) fn write(&self, labels: &str, into: &mut String) {
        let mut line = Object::begin(into);
        line.text("target", Some("access"));
        line.shown("start_time", Some(Moment(self.noted.at)));
        self.write_request(&mut line);
        line.written(labels);
        self.write_known(&mut line);
        line.end();
    }

    /// Who it was between.
    fn ends(&self) -> Ends<'_> {
        Ends { arrival: self.arrival, endpoint: self.endpoint }
    }

    /// Istio's fields.
    fn write_request(&self, line: &mut Object<'_>) {
        let noted = self.noted;
        line.text("method", Some(noted.method.as_str()));
        line.text("path", Some(&noted.target()));
        line.text("protocol", Some(protocol(noted.version)));
        line.number("response_code", self.status);
        line.text("response_flags", Some(self.flags));
        line.text("response_code_details", Some(self.details));
        line.number("bytes_received", self.sent);
        line.number("bytes_sent", self.received);
        line.number("duration", milliseconds(self.duration));
        match self.answered_after {
            None => line.text("upstream_service_time", None),
            Some(time) => line.number("upstream_service_time", milliseconds(time)),
        }
        line.text("x_forwarded_for", text(noted.forwarded_for.as_ref()));
        line.text("user_agent", text(noted.user_agent.as_ref()));
        line.text("request_id", text(self.request_id));
        line.text("authority", noted.authority());
        line.shown("upstream_host", self.endpoint.map(Endpoint::address));
        line.shown("upstream_cluster", self.cluster);
        line.shown("downstream_remote_address", Some(self.arrival.client.address));
        line.text("requested_server_name", self.arrival.target.server_name());
        line.shown("route_name", self.rule.map(|rule| &rule.at));
        if let Some(grpc) = self.grpc {
            line.number("grpc_status", grpc);
        }
    }

    /// What only the mesh knows.
    fn write_known(&self, line: &mut Object<'_>) {
        let source = self.arrival.client.workload.as_deref();
        line.text("source_namespace", source.map(|workload| &*workload.namespace));
        let destination = self.endpoint.and_then(|endpoint| endpoint.workload.as_deref());
        line.text("destination_namespace", destination.map(|workload| &*workload.namespace));
        line.text("policy", self.policy);
        line.text("request_principal", self.request_principal);
        line.text("token_refused", self.token_refused);
        if let Some(trace) = self.trace {
            line.shown("trace_id", Some(trace_id(trace)));
        }
    }
}

impl Values for Ended<'_> {
    fn put(&self, value: &LineValue, hostname: &str, into: &mut String) {
        let noted = self.noted;
        match value {
            LineValue::Operator(operator) => self.put_operator(operator, hostname, into),
            LineValue::Start(parts) => format::moment(noted.at, parts, into),
            LineValue::Flags => into.push_str(self.flags),
            LineValue::Details => into.push_str(self.details),
            LineValue::Received => format::put(self.sent, into),
            LineValue::Sent => format::put(self.received, into),
            LineValue::Duration => format::put(milliseconds(self.duration), into),
            LineValue::AnsweredAfter => {
                self.answered_after.into_iter().for_each(|time| format::put(milliseconds(time), into));
            }
            LineValue::Cluster => self.cluster.into_iter().for_each(|cluster| format::put(cluster, into)),
            LineValue::Route => self.rule.into_iter().for_each(|rule| format::put(&rule.at, into)),
            LineValue::GrpcStatus => self.grpc.into_iter().for_each(|status| format::put(status, into)),
            LineValue::Trace => self.trace.into_iter().for_each(|trace| format::put(trace_id(trace), into)),
            LineValue::Termination | LineValue::Nothing => {}
        }
    }
}

impl Ended<'_> {
    fn put_operator(&self, operator: &Operator, hostname: &str, into: &mut String) {
        let noted = self.noted;
        match operator {
            Operator::Protocol => into.push_str(protocol(noted.version)),
            Operator::Start(form) => format::put_start(noted.at, *form, into),
            Operator::RequestField(field) => {
                field.value(|name| noted.request_field(name, self.arrival.target.scheme()), into);
            }
            Operator::ResponseField(field) => field.value(|name| noted.response_field(name), into),
            // As Envoy has it where there was no answer.
            Operator::Status => format::put(self.status, into),
            Operator::Endpoint => self.endpoint.into_iter().for_each(|endpoint| format::put(endpoint.address(), into)),
            operator => {
                format::put_of_arrival(operator, self.arrival, hostname, into);
            }
        }
    }
}

impl telemetry::filter::Attributes for Ended<'_> {
    fn number(&self, what: Number) -> Option<i64> {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        match what {
            Number::ResponseCode => (self.status > 0).then(|| self.status.into()),
            Number::ResponseGrpcStatus => self.grpc.map(Into::into),
            Number::RequestSize => Some(bytes(self.sent)),
            Number::ResponseSize => Some(bytes(self.received)),
            Number::SourcePort => Some(self.ends().source_port()),
            Number::DestinationPort => Some(self.ends().destination_port()),
        }
    }

    fn text(&self, what: &Text) -> Option<Cow<'_, str>> {
        let noted = self.noted;
        Some(match what {
            Text::Method => Cow::Borrowed(noted.method.as_str()),
            Text::Path => noted.target(),
            Text::UrlPath => Cow::Borrowed(&noted.path),
            Text::Query => Cow::Borrowed(noted.query.as_deref().unwrap_or_default()),
            Text::Host => Cow::Borrowed(noted.authority()?),
            Text::Scheme => Cow::Borrowed(self.arrival.target.scheme()),
            Text::Protocol => Cow::Borrowed(protocol(noted.version)),
            Text::UserAgent => Cow::Borrowed(text(noted.user_agent.as_ref())?),
            Text::RequestId => Cow::Borrowed(text(self.request_id)?),
            Text::Header(name) => Cow::Borrowed(field(&noted.headers, name)?),
            Text::SourceAddress | Text::UpstreamAddress | Text::PeerIdentity | Text::ServerName => {
                self.ends().text(what)?
            }
        })
    }

    fn mtls(&self) -> bool {
        self.ends().mtls()
    }

    fn peer(&self, peer: Peer, what: &PeerAttribute) -> Option<&str> {
        self.ends().peer(peer, what)
    }
}
