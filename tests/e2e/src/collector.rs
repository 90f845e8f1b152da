//! A collector of spans and lines on a node or in a pod: what an OpenTelemetry collector takes, over gRPC or HTTP.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mesh_lab::{Node, Pod};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tonic::Status;

use crate::inside;

/// How spans come in.
#[derive(Clone, Copy, Debug)]
pub enum Otlp {
    /// Over gRPC.
    Grpc,
    /// Over HTTP.
    Http,
}

/// A collector. Its thread ends with the test's process.
pub struct Collector {
    address: SocketAddr,
    spans: Spans,
    lines: Lines,
}

type Spans = Arc<Mutex<Vec<Span>>>;
type Lines = Arc<Mutex<Vec<LogRecord>>>;

impl Collector {
    /// Listens in a node's network namespace, on loopback.
    pub fn start(node: &Node, otlp: Otlp) -> Result<Self> {
        Self::start_at(node, Ipv4Addr::LOCALHOST.into(), otlp)
    }

    /// The same at an address of the node.
    pub fn start_at(node: &Node, address: IpAddr, otlp: Otlp) -> Result<Self> {
        Self::listen(node.inside(|| TcpListener::bind((address, 0)).context("binding a collector"))?, otlp)
    }

    /// The same in a pod, at all its addresses, over gRPC; it takes lines, too.
    pub fn start_in(pod: &Pod) -> Result<Self> {
        let bind = || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).context("binding a collector");
        Self::listen(inside(pod, bind)?, Otlp::Grpc)
    }

    fn listen(listener: TcpListener, otlp: Otlp) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (spans, lines) = (Spans::default(), Lines::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (kept, kept_lines) = (spans.clone(), lines.clone());
        thread::spawn(move || {
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                match otlp {
                    Otlp::Grpc => over_grpc(listener, kept, kept_lines).await,
                    Otlp::Http => over_http(listener, kept).await,
                }
            });
            if let Err(error) = served {
                eprintln!("the collector ended: {error:#}");
            }
        });
        Ok(Self { address, spans, lines })
    }

    /// The port that it listens at.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The lines that have come so far.
    pub fn lines(&self) -> Vec<LogRecord> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its URL, as the node's daemon reaches it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans that have come so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The text of a span's attribute.
pub fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn keep(spans: &Spans, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse {
    let came = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    let came = came.flat_map(|scope| scope.spans);
    spans.lock().unwrap_or_else(PoisonError::into_inner).extend(came);
    ExportTraceServiceResponse::default()
}

struct Keeper(Spans);

#[tonic::async_trait]
impl TraceService for Keeper {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        Ok(tonic::Response::new(keep(&self.0, request.into_inner())))
    }
}

struct LineKeeper(Lines);

#[tonic::async_trait]
impl LogsService for LineKeeper {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, Status> {
        let came = request.into_inner().resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
        let came = came.flat_map(|scope| scope.log_records);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(came);
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

async fn over_grpc(listener: tokio::net::TcpListener, spans: Spans, lines: Lines) -> Result<()> {
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Keeper(spans)));
    let server = server.add_service(LogsServiceServer::new(LineKeeper(lines)));
    server.serve_with_incoming(incoming).await.context("serving gRPC")
}

async fn over_http(listener: tokio::net::TcpListener, spans: Spans) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let spans = spans.clone();
        let service = service_fn(move |request| take(request, spans.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn take(request: Request<Incoming>, spans: Spans) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_otlp = request.uri().path() == "/v1/traces"
        && request.headers().get("content-type").is_some_and(|kind| kind == "application/x-protobuf");
    let body = request.into_body().collect().await.map(|body| body.to_bytes());
    let decoded = body.ok().filter(|_| is_otlp).and_then(|body| ExportTraceServiceRequest::decode(body).ok());
    Ok(match decoded {
        Some(request) => Response::new(Full::new(keep(&spans, request).encode_to_vec().into())),
        None => {
            let mut refusal = Response::new(Full::default());
            *refusal.status_mut() = hyper::StatusCode::BAD_REQUEST;
            refusal
        }
    })
}
