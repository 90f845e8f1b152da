//! Spans in OTLP's form, with the attributes of OpenTelemetry's semantic conventions where it has them.

use mesh_otlp::{KeyValue, Record, Span, failed, party_attributes, span, text};

use super::{Finished, SpanKind};
use crate::telemetry::Report;

impl Record for Finished {
    type Item = Span;

    fn into_item(self) -> Span {
        let Self { placed, kind, tags, ended, report, error } = self;
        let (kind, name) = match kind {
            SpanKind::Client => (span::SpanKind::Client, "connect"),
            SpanKind::Server => (span::SpanKind::Server, "accept"),
        };
        let mut attributes = attributes(&report);
        attributes.extend(tags.iter().map(|(name, value)| text(name, value)));
        let status = error.map(|(kind, message)| failed(kind, message, &mut attributes));
        Span { attributes, status, ..placed.into_span(kind, name.to_owned(), ended) }
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
