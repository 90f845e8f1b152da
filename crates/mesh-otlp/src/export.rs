//! The way to a collector.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header::CONTENT_TYPE, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tonic::{
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{Collector, Fate, Item, Protocol, Source};

/// Spans or lines that may wait for the collector; those beyond are dropped.
const WAITING: usize = 2048;
/// Spans or lines in one request at most.
const BATCH: usize = 512;
/// How long the first of a request waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// How long the collector may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read.
const LONGEST_ANSWER: usize = 64 << 10;

/// Why something was not taken. What comes next may be.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("no answer within {} s", ANSWER.as_secs())]
    Slow,
    #[error("there is none")]
    NoCollector,
    #[error("{0}")]
    Grpc(#[from] Box<tonic::Status>),
    #[error("{0}")]
    Channel(#[from] tonic::transport::Error),
    #[error("{0}")]
    Connect(#[from] hyper_util::client::legacy::Error),
    #[error("the answer was {0}")]
    Status(http::StatusCode),
    #[error("the answer cannot be read: {0}")]
    Answer(String),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
}

/// What a program knows of a span or a line.
pub trait Record: Send + 'static {
    /// What the collector gets.
    type Item: Item;
    /// That, made only when it is sent.
    fn into_item(self) -> Self::Item;
}

/// Where spans that have ended, or lines, are put.
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

/// Says where the collector is now, if it is anywhere.
type Place = Box<dyn Fn() -> Option<Collector> + Send>;

/// What sends spans or lines; see [`Self::run`].
pub struct Exporter<R> {
    place: Place,
    waiting: mpsc::Receiver<R>,
}

/// A queue to a collector, and what sends there what is put into it.
#[must_use]
pub fn queue<R: Record>(collector: Collector) -> (Queue<R>, Exporter<R>) {
    queue_to(move || Some(collector.clone()))
}

/// The same to a collector that is looked for before each request.
#[must_use]
pub fn queue_to<R: Record>(place: impl Fn() -> Option<Collector> + Send + 'static) -> (Queue<R>, Exporter<R>) {
    let (queue, waiting) = mpsc::channel(WAITING);
    (Queue(queue), Exporter { place: Box::new(place), waiting })
}

impl<R: Record> Exporter<R> {
    /// Sends what is put into the queue until nobody can put anything there any more. `fates` is told what became of how many.
    pub async fn run(mut self, source: &Source, fates: impl Fn(Fate, u64)) {
        let mut connection: Option<(Collector, Connection)> = None;
        let mut pause = FIRST_PAUSE;
        let mut failing = false;
        while let Some(batch) = self.batch().await {
            let count = batch.len() as u64;
            let request = R::Item::request(source, batch.into_iter().map(R::into_item).collect());
            let place = (self.place)();
            if connection.as_ref().map(|(to, _)| to) != place.as_ref() {
                connection = place.map(|to| (to.clone(), Connection::to::<R::Item>(&to)));
            }
            let sent = match &mut connection {
                None => Err(ExportError::NoCollector),
                Some((_, connection)) => {
                    let sent = timeout(ANSWER, connection.send::<R::Item>(request)).await;
                    sent.unwrap_or(Err(ExportError::Slow))
                }
            };
            let what = R::Item::NAME;
            let collector = connection.as_ref().map(|(to, _)| tracing::field::display(to));
            match sent {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    fates(Fate::Exported, count - rejected);
                    if rejected > 0 {
                        fates(Fate::Failed, rejected);
                    }
                    if failing {
                        tracing::info!(collector, "{what} are taken again");
                    }
                    (failing, pause) = (false, FIRST_PAUSE);
                }
                Err(error) => {
                    fates(Fate::Failed, count);
                    if !failing {
                        tracing::warn!(collector, %error, "{what} are lost until the collector takes them");
                    }
                    failing = true;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The next ones, as many as come within [`LINGER`]; none at the end.
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
    Grpc(Grpc<Channel>),
    Http(Client<HttpConnector, Full<Bytes>>, String),
}

impl Connection {
    fn to<I: Item>(collector: &Collector) -> Self {
        match collector.protocol {
            Protocol::Grpc => {
                let channel = Endpoint::from(collector.url.clone()).connect_timeout(ANSWER).connect_lazy();
                Self::Grpc(Grpc::new(channel))
            }
            Protocol::Http => {
                Self::Http(Client::builder(TokioExecutor::new()).build_http(), collector.url_of(I::HTTP_PATH))
            }
        }
    }

    /// How many the collector did not want of those that it took.
    async fn send<I: Item>(&mut self, request: I::Request) -> Result<u64, ExportError> {
        let response: I::Response = match self {
            Self::Grpc(client) => {
                client.ready().await?;
                let (method, codec) = (PathAndQuery::from_static(I::GRPC_METHOD), ProstCodec::default());
                client.unary(tonic::Request::new(request), method, codec).await.map_err(Box::new)?.into_inner()
            }
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
                I::Response::decode(body).map_err(|error| ExportError::Answer(error.to_string()))?
            }
        };
        Ok(u64::try_from(I::rejected(&response)).unwrap_or(0))
    }
}
