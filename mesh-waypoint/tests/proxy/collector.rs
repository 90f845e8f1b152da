//! A collector of spans, as an OpenTelemetry collector takes them over gRPC.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;

/// Where it listens.
pub(crate) const COLLECTOR: &str = "127.0.0.1:4317";

/// A collector.
pub(crate) struct Collector {
    came: RefCell<mpsc::UnboundedReceiver<ExportTraceServiceRequest>>,
    /// The spans that have come so far.
    pub(crate) spans: RefCell<Vec<Span>>,
}

struct Keeper(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Keeper {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        // A test that has ended wants none.
        let _ = self.0.send(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(crate) async fn start() -> Rc<Self> {
        let listener = TcpListener::bind(COLLECTOR).await.expect("the collector's port");
        let (sender, came) = mpsc::unbounded_channel();
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Keeper(sender)));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Rc::new(Self { came: RefCell::new(came), spans: RefCell::default() })
    }

    /// Waits until `count` spans have come, and gives all.
    pub(crate) async fn spans(&self, count: usize) -> Vec<Span> {
        while self.spans.borrow().len() < count {
            self.next().await;
        }
        self.spans.borrow().clone()
    }

    #[expect(clippy::await_holding_refcell_ref, reason = "one task waits")]
    async fn next(&self) {
        let request = self.came.borrow_mut().recv().await.expect("the collector runs");
        let came = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.spans.borrow_mut().extend(came.flat_map(|scope| scope.spans));
    }

    /// Whether no span comes for a while longer than spans wait for others.
    pub(crate) async fn is_quiet(&self) -> bool {
        tokio::time::timeout(Duration::from_millis(1500), self.next()).await.is_err()
    }
}

/// An attribute as text.
pub(crate) fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The names of what happened in a span.
pub(crate) fn events(span: &Span) -> Vec<&str> {
    span.events.iter().map(|event| event.name.as_str()).collect()
}
