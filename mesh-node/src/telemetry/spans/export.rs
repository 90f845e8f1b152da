//! Spans to a collector, by OTLP over gRPC or HTTP (opentelemetry.io, "OTLP Specification").
//!
//! A collector that is away, slow or refuses costs spans, never connections: they are counted and gone.

use std::{str::FromStr, sync::Arc, time::Duration};

use clap::ValueEnum;
use http::{HeaderValue, Method, Request, Uri, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, trace_service_client::TraceServiceClient,
};
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tonic::transport::{Channel, Endpoint};

use super::{Finished, SpanFate, otlp};
use crate::telemetry::Metrics;

/// Spans in one request at most.
const BATCH: usize = 512;
/// How long the first span of a request waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// How long the collector may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read.
const LONGEST_ANSWER: usize = 64 << 10;

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// OTLP over gRPC; collectors listen on 4317.
    Grpc,
    /// OTLP over HTTP with binary Protobuf; collectors listen on 4318.
    Http,
}

/// A text that names no collector.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// Not a URL.
    #[error("{url:?} is no URL: {source}; write it as http://collector.observability:4317")]
    Url {
        /// The text.
        url: String,
        /// Why.
        source: http::uri::InvalidUri,
    },
    /// Another scheme than http.
    #[error(
        "{url:?} must begin with http:// and name a host; collectors under TLS are reached through an agent on the node"
    )]
    Scheme {
        /// The text.
        url: String,
    },
}

/// A collector.
#[derive(Clone, Debug)]
pub struct Collector {
    url: Uri,
    protocol: Protocol,
}

impl Collector {
    /// Reads a URL such as `http://collector:4317`.
    ///
    /// # Errors
    /// It is no URL, or of another scheme than http.
    pub fn new(url: &str, protocol: Protocol) -> Result<Self, CollectorError> {
        let parsed = Uri::from_str(url).map_err(|source| CollectorError::Url { url: url.to_owned(), source })?;
        if parsed.scheme_str() != Some("http") || parsed.host().is_none() {
            return Err(CollectorError::Scheme { url: url.to_owned() });
        }
        Ok(Self { url: parsed, protocol })
    }

    /// The URL that OTLP over HTTP posts to: the signal's path is added unless another is given.
    fn traces_url(&self) -> String {
        match self.url.path() {
            "" | "/" => format!("{}v1/traces", self.url),
            _ => self.url.to_string(),
        }
    }
}

/// Why spans were not taken. The next ones may be.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("no answer within {} s", ANSWER.as_secs())]
    Slow,
    #[error("{0}")]
    Grpc(#[from] Box<tonic::Status>),
    #[error("{0}")]
    Connect(#[from] hyper_util::client::legacy::Error),
    #[error("the answer was {0}")]
    Status(http::StatusCode),
    #[error("the answer cannot be read: {0}")]
    Answer(String),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
}

/// What sends spans; see [`Self::run`].
pub struct Exporter {
    collector: Collector,
    waiting: mpsc::Receiver<Finished>,
}

impl Exporter {
    pub(super) fn new(collector: Collector, waiting: mpsc::Receiver<Finished>) -> Self {
        Self { collector, waiting }
    }

    /// Sends spans until nobody makes them any more. `node` and `cluster` name this daemon to the collector.
    pub async fn run(mut self, node: &str, cluster: &str, metrics: Arc<Metrics>) {
        let mut connection = Connection::to(&self.collector);
        let mut pause = FIRST_PAUSE;
        let mut failing = false;
        while let Some(batch) = self.batch().await {
            let count = batch.len() as u64;
            let request = otlp::request(batch, node, cluster);
            let sent = timeout(ANSWER, connection.send(request)).await.unwrap_or(Err(ExportError::Slow));
            match sent {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    metrics.spans(SpanFate::Exported, count - rejected);
                    metrics.spans(SpanFate::Failed, rejected);
                    if failing {
                        tracing::info!(collector = %self.collector.url, "spans are taken again");
                    }
                    (failing, pause) = (false, FIRST_PAUSE);
                }
                Err(error) => {
                    metrics.spans(SpanFate::Failed, count);
                    if !failing {
                        tracing::warn!(collector = %self.collector.url, %error, "spans are lost until the collector takes them");
                    }
                    failing = true;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The next spans, as many as come within [`LINGER`]; none at the end.
    async fn batch(&mut self) -> Option<Vec<Finished>> {
        let mut batch = vec![self.waiting.recv().await?];
        let deadline = Instant::now() + LINGER;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            match timeout_at(deadline, self.waiting.recv_many(&mut batch, room)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        Some(batch)
    }
}

/// A way to the collector; connects when it is used, and again when that is lost.
enum Connection {
    Grpc(TraceServiceClient<Channel>),
    Http(Client<HttpConnector, Full<Bytes>>, String),
}

impl Connection {
    fn to(collector: &Collector) -> Self {
        match collector.protocol {
            Protocol::Grpc => {
                let channel = Endpoint::from(collector.url.clone()).connect_timeout(ANSWER).connect_lazy();
                Self::Grpc(TraceServiceClient::new(channel))
            }
            Protocol::Http => Self::Http(Client::builder(TokioExecutor::new()).build_http(), collector.traces_url()),
        }
    }

    /// How many spans the collector did not want of those that it took.
    async fn send(&mut self, request: ExportTraceServiceRequest) -> Result<u64, ExportError> {
        let response = match self {
            Self::Grpc(client) => client.export(request).await.map_err(Box::new)?.into_inner(),
            Self::Http(client, url) => {
                let body = Full::new(Bytes::from(request.encode_to_vec()));
                let mut post = Request::builder().method(Method::POST).uri(url.as_str()).body(body)?;
                post.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
                let response = client.request(post).await?;
                if !response.status().is_success() {
                    return Err(ExportError::Status(response.status()));
                }
                let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
                let body = body.map_err(|error| ExportError::Answer(error.to_string()))?.to_bytes();
                ExportTraceServiceResponse::decode(body).map_err(|error| ExportError::Answer(error.to_string()))?
            }
        };
        let rejected = response.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(rejected).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_by_an_http_url() {
        for bad in ["", "collector", "https://collector:4317", "http://", "ftp://x", "collector:4317", "http://a b"] {
            assert!(Collector::new(bad, Protocol::Grpc).is_err(), "{bad}");
        }
        let traces = |url: &str| Collector::new(url, Protocol::Http).expect(url).traces_url();
        assert_eq!(traces("http://collector:4318"), "http://collector:4318/v1/traces");
        assert_eq!(traces("http://collector:4318/"), "http://collector:4318/v1/traces");
        assert_eq!(traces("http://collector:4318/in/v1/traces"), "http://collector:4318/in/v1/traces");
    }
}
