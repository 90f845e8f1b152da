//! The way to a collector.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, Limited};
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

use crate::{Collector, Protocol, Source, Span, SpanFate};

/// Spans that may wait for the collector; those beyond are dropped.
const WAITING: usize = 2048;
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

/// What a program knows of a span that has ended.
pub trait Record: Send + 'static {
    /// The span, made only when it is sent.
    fn into_span(self) -> Span;
}

/// Where ended spans are put.
#[derive(Debug)]
pub struct Queue<R>(mpsc::Sender<R>);

impl<R> Clone for Queue<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: Record> Queue<R> {
    /// Puts one there; false where too many wait, and it is dropped.
    #[must_use]
    pub fn put(&self, record: R) -> bool {
        self.0.try_send(record).is_ok()
    }
}

/// What sends spans; see [`Self::run`].
#[derive(Debug)]
pub struct Exporter<R> {
    collector: Collector,
    waiting: mpsc::Receiver<R>,
}

/// A queue to a collector, and what sends its spans there.
#[must_use]
pub fn queue<R: Record>(collector: Collector) -> (Queue<R>, Exporter<R>) {
    let (queue, waiting) = mpsc::channel(WAITING);
    (Queue(queue), Exporter { collector, waiting })
}

impl<R: Record> Exporter<R> {
    /// Sends spans until nobody makes them any more. `fates` is told what became of how many.
    pub async fn run(mut self, source: &Source, fates: impl Fn(SpanFate, u64)) {
        let mut connection = Connection::to(&self.collector);
        let mut pause = FIRST_PAUSE;
        let mut failing = false;
        while let Some(batch) = self.batch().await {
            let count = batch.len() as u64;
            let request = source.request(batch.into_iter().map(R::into_span).collect());
            let sent = timeout(ANSWER, connection.send(request)).await.unwrap_or(Err(ExportError::Slow));
            match sent {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    fates(SpanFate::Exported, count - rejected);
                    if rejected > 0 {
                        fates(SpanFate::Failed, rejected);
                    }
                    if failing {
                        tracing::info!(collector = %self.collector, "spans are taken again");
                    }
                    (failing, pause) = (false, FIRST_PAUSE);
                }
                Err(error) => {
                    fates(SpanFate::Failed, count);
                    if !failing {
                        tracing::warn!(collector = %self.collector, %error, "spans are lost until the collector takes them");
                    }
                    failing = true;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The next spans, as many as come within [`LINGER`]; none at the end.
    async fn batch(&mut self) -> Option<Vec<R>> {
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
