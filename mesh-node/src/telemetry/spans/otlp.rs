//! Spans in OTLP's form, with the attributes of OpenTelemetry's semantic conventions where it has them.

use mesh_otlp::{KeyValue, Record, Span, Status, StatusCode, nanoseconds, of_context, party_attributes, span, text};

use super::{Finished, SpanEvent, SpanKind};
use crate::telemetry::Report;

impl Record for Finished {
    fn into_span(self) -> Span {
        let Self { span, ended, report, error } = self;
        let (kind, name) = match span.kind {
            SpanKind::Client => (span::SpanKind::Client, "connect"),
            SpanKind::Server => (span::SpanKind::Server, "accept"),
        };
        let mut attributes = attributes(&report);
        let status = error.map(|(kind, message)| {
            attributes.push(text("error.type", kind));
            Status { code: StatusCode::Error.into(), message }
        });
        Span {
            name: name.to_owned(),
            kind: kind.into(),
            start_time_unix_nano: nanoseconds(span.started),
            end_time_unix_nano: nanoseconds(ended),
            attributes,
            events: span.events.into_iter().map(event).collect(),
            status,
            ..of_context(&span.context, span.parent)
        }
    }
}

fn attributes(report: &Report) -> Vec<KeyValue> {
    let mut attributes = vec![
        text("network.transport", "tcp"),
        text("mesh.reporter", report.reporter.as_str()),
        text("mesh.security", report.security.as_str()),
    ];
    for (side, party) in [("client", &report.source), ("server", &report.destination)] {
        attributes.extend(party_attributes(side, party.address, party.workload.as_deref(), party.principal.as_ref()));
    }
    if let Some(service) = &report.service {
        attributes.push(text("mesh.server.service", &service.hostname));
    }
    attributes
}

fn event(event: SpanEvent) -> span::Event {
    span::Event {
        time_unix_nano: nanoseconds(event.at),
        name: event.name.to_owned(),
        attributes: event.detail.iter().map(|detail| text("detail", detail)).collect(),
        dropped_attributes_count: 0,
    }
}
