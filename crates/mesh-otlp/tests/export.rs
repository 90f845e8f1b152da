//! Spans on their way to real collectors, and to none.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mesh_core::TraceContext;
use mesh_otlp::{Collector, Exporter, Fate, Placed, Protocol, Queue, Record, Source, Span, queue, span};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

/// A span of that number.
struct Numbered(u64);

impl Record for Numbered {
    type Item = Span;

    fn into_item(self) -> Span {
        Placed::begin(TraceContext::root(7, self.0, true), None).into_span(
            span::SpanKind::Internal,
            "of a test".to_owned(),
            Instant::now(),
        )
    }
}

/// A collector that tells what it gets, or says no.
struct Taking(mpsc::UnboundedSender<ExportTraceServiceRequest>, bool);

#[tonic::async_trait]
impl TraceService for Taking {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if self.1 {
            return Err(Status::unavailable("full"));
        }
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector(refusing: bool) -> (SocketAddr, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, taken) = mpsc::unbounded_channel();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let service = TraceServiceServer::new(Taking(sender, refusing));
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    (address, taken)
}

type Fates = Rc<RefCell<Vec<(Fate, u64)>>>;

fn to(address: SocketAddr, protocol: Protocol) -> (Queue<Numbered>, Exporter<Numbered>) {
    queue(Collector::new(&format!("http://{address}"), protocol).unwrap())
}

fn run(exporter: Exporter<Numbered>) -> Fates {
    let fates = Fates::default();
    let told = fates.clone();
    spawn_local(async move {
        let source = Source::new("test", "cart", "1").with("k8s.cluster.name", "one");
        exporter.run(&source, |fate, count| told.borrow_mut().push((fate, count))).await;
    });
    fates
}

/// Runs a test on one thread, as programs do.
fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { timeout(Duration::from_secs(30), test).await.expect("it hangs") });
}

async fn told(fates: &Fates) {
    while fates.borrow().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn spans_arrive_with_their_source() {
    local(async {
        let (address, mut taken) = collector(false).await;
        let (queue, exporter) = to(address, Protocol::Grpc);
        let fates = run(exporter);
        assert!(queue.put(Numbered(1)) && queue.put(Numbered(2)));
        let request = taken.recv().await.unwrap();
        let source = &request.resource_spans[0];
        let keys = &source.resource.as_ref().unwrap().attributes;
        assert_eq!(
            keys.iter().map(|pair| pair.key.as_str()).collect::<Vec<_>>(),
            ["service.name", "service.version", "k8s.cluster.name"]
        );
        let ids: Vec<_> = source.scope_spans[0].spans.iter().map(|span| span.span_id[7]).collect();
        assert_eq!(ids, [1, 2]);
        told(&fates).await;
        assert_eq!(*fates.borrow(), [(Fate::Exported, 2)]);
    });
}

#[test]
fn what_a_collector_refuses_is_counted() {
    local(async {
        let (address, _taken) = collector(true).await;
        let (queue, exporter) = to(address, Protocol::Grpc);
        let fates = run(exporter);
        assert!(queue.put(Numbered(1)));
        told(&fates).await;
        assert_eq!(*fates.borrow(), [(Fate::Failed, 1)]);
    });
}

#[test]
fn a_collector_that_never_answers_holds_up_nobody() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        local(async {
            // It accepts in its backlog, and says nothing.
            let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (queue, exporter) = to(silent.local_addr().unwrap(), protocol);
            let fates = run(exporter);
            let mut put = 0;
            while queue.put(Numbered(put)) {
                put += 1;
                assert!(put < 1_000_000, "the queue has no bound");
            }
            told(&fates).await;
            assert_eq!(fates.borrow()[0].0, Fate::Failed);
        });
    }
}
