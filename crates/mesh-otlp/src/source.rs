//! Who sends spans.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans},
};

use crate::{Span, text};

/// The program that spans are of, as the collector is told.
#[derive(Clone, Debug)]
pub struct Source {
    program: &'static str,
    attributes: Vec<KeyValue>,
}

impl Source {
    /// A program of that name and version, which shows as the service `service`.
    #[must_use]
    pub fn new(program: &'static str, service: &str, version: &str) -> Self {
        Self { program, attributes: vec![text("service.name", service), text("service.version", version)] }
    }

    /// With one attribute more, by OpenTelemetry's "Resource Semantic Conventions".
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.attributes.push(text(key, value));
        self
    }

    /// One request for all of `spans`.
    pub(crate) fn request(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let resource = Resource { attributes: self.attributes.clone(), ..Resource::default() };
        let scope = InstrumentationScope {
            name: self.program.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        let resource_spans = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
    }
}
