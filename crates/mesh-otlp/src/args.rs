//! The flags by which a program is told where its spans go.

use crate::{Collector, CollectorError, Protocol};

/// Where spans go, and how many traces are recorded.
#[derive(Clone, Debug, clap::Args)]
pub struct SpanArgs {
    /// Collector of spans by OTLP, such as http://collector:4317; without one, no span is made.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// How the collector is spoken to.
    #[arg(long, value_enum, default_value_t = Protocol::Grpc)]
    pub otlp_protocol: Protocol,
    /// Share of the traces begun here that is recorded, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    pub trace_sampling: f64,
}

impl SpanArgs {
    /// The flag of which [`Self::collector`]'s errors tell.
    pub const COLLECTOR_FLAG: &str = "--otlp-endpoint";

    /// The collector, where one is named.
    ///
    /// # Errors
    /// What is named is none.
    pub fn collector(&self) -> Result<Option<Collector>, CollectorError> {
        self.otlp_endpoint.as_deref().map(|url| Collector::new(url, self.otlp_protocol)).transpose()
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("not a number from 0 to 1".to_owned()),
    }
}
