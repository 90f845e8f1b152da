//! Spans in OTLP's form, with the attributes of OpenTelemetry's semantic conventions where it has them.

use std::time::SystemTime;

use mesh_core::SpiffeId;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span, status::StatusCode},
};

use super::{Finished, SpanEvent, SpanKind};
use crate::telemetry::{Party, Report};

/// One request for all of `batch`.
pub(super) fn request(batch: Vec<Finished>, node: &str, cluster: &str) -> ExportTraceServiceRequest {
    let resource = Resource {
        attributes: vec![
            text("service.name", "mesh-node"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("k8s.node.name", node),
            text("k8s.cluster.name", cluster),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "mesh-node".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = batch.into_iter().map(to_otlp).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource_spans = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

fn to_otlp(finished: Finished) -> Span {
    let Finished { span, ended, report, error } = finished;
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
        trace_id: span.context.trace_id.into(),
        span_id: span.context.span_id.into(),
        parent_span_id: span.parent.map(Vec::from).unwrap_or_default(),
        name: name.to_owned(),
        kind: kind.into(),
        // W3C Trace Context, section 3.2.2.5: sampled.
        flags: 1,
        start_time_unix_nano: nanoseconds(span.started),
        end_time_unix_nano: nanoseconds(ended),
        attributes,
        events: span.events.into_iter().map(event).collect(),
        status,
        ..Span::default()
    }
}

fn attributes(report: &Report) -> Vec<KeyValue> {
    let mut attributes = vec![
        text("network.transport", "tcp"),
        text("mesh.reporter", report.reporter.as_str()),
        text("mesh.security", report.security.as_str()),
    ];
    for (side, party) in [("client", &report.source), ("server", &report.destination)] {
        attributes.extend(of_party(side, party));
    }
    if let Some(service) = &report.service {
        attributes.push(text("mesh.server.service", &service.hostname));
    }
    attributes
}

fn of_party(side: &str, party: &Party) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    if let Some(address) = party.address {
        attributes.push(text(&format!("{side}.address"), &address.ip().to_string()));
        attributes.push(pair(&format!("{side}.port"), Value::IntValue(address.port().into())));
    }
    if let Some(workload) = &party.workload {
        attributes.push(text(&format!("mesh.{side}.namespace"), &workload.namespace));
        attributes.push(text(&format!("mesh.{side}.workload"), &workload.workload_name));
        attributes.push(text(&format!("mesh.{side}.pod"), &workload.name));
    }
    attributes
        .extend(party.principal.as_ref().map(SpiffeId::as_str).map(|id| text(&format!("mesh.{side}.principal"), id)));
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

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
