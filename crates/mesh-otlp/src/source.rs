//! Who sends spans and lines.

use opentelemetry_proto::tonic::{
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1::Resource,
};

use crate::text;

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

    /// As requests name it.
    pub(crate) fn resource(&self) -> Resource {
        Resource { attributes: self.attributes.clone(), ..Resource::default() }
    }

    /// The same of what made what they carry.
    pub(crate) fn scope(&self) -> InstrumentationScope {
        InstrumentationScope {
            name: self.program.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        }
    }
}
