//! Spans and lines of logs to a collector, by OTLP over gRPC or HTTP (opentelemetry.io, "OTLP Specification").
//!
//! A program keeps what it knows of a span or line in a type of its own ([`Record`]) and puts it into a [`Queue`], which takes no time and
//! waits for nobody; an [`Exporter`] turns records into what OTLP has and sends them. A collector that is away, slow or refuses costs
//! records, which are counted, and never traffic.
#![forbid(unsafe_code)]

mod args;
mod attributes;
mod collector;
mod export;
mod item;
mod line;
mod named;
mod placed;
mod source;
mod tags;

pub use args::SpanArgs;
pub use attributes::{integer, party_attributes, text, workload_attributes};
pub use collector::{Collector, CollectorError, Protocol};
pub use export::{Exporter, Queue, Record, queue, queue_to};
pub use item::Item;
pub use line::Line;
pub use named::{Named, NamedCollectors};
pub use opentelemetry_proto::tonic::common::v1::KeyValue;
pub use opentelemetry_proto::tonic::trace::v1::{Span, Status, span};
pub use placed::{Placed, failed};
pub use source::Source;
pub use tags::tag_values;

/// What became of a span or line: a closed set, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The collector has taken it.
    Exported,
    /// Too many waited.
    Dropped,
    /// The collector was away or refused it.
    Failed,
}

impl Fate {
    /// Every fate.
    pub const ALL: [Self; 3] = [Self::Exported, Self::Dropped, Self::Failed];

    /// As a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
        }
    }
}
