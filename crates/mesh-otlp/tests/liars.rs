//! Collectors that answer what is not so, or what is no answer: what they say is counted within bounds, and the next records go on.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use mesh_core::TraceContext;
use mesh_otlp::{Collector, Fate, Placed, Protocol, Record, Source, Span, queue, span};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tonic::{Request, Response, Status};

struct Empty;

impl Record for Empty {
    type Item = Span;

    fn into_item(self) -> Span {
        let placed = Placed::begin(TraceContext::root(1, 2, true), None);
        placed.into_span(span::SpanKind::Internal, "of a test".to_owned(), Instant::now())
    }
}

/// A partial success by which so many were not wanted, and what is said of that.
fn rejecting(rejected_spans: i64, error_message: String) -> ExportTraceServiceResponse {
    ExportTraceServiceResponse { partial_success: Some(ExportTracePartialSuccess { rejected_spans, error_message }) }
}

/// What a liar answers, and what is to be counted of the one record that it was sent.
type Lie<T> = (T, &'static [(Fate, u64)]);

const TAKEN: &[(Fate, u64)] = &[(Fate::Exported, 1)];
const REFUSED: &[(Fate, u64)] = &[(Fate::Exported, 0), (Fate::Failed, 1)];
const LOST: &[(Fate, u64)] = &[(Fate::Failed, 1)];

/// Lies that both protocols can carry.
fn counts() -> Vec<Lie<ExportTraceServiceResponse>> {
    [(0, TAKEN), (1, REFUSED), (1_000, REFUSED), (i64::MAX, REFUSED), (-1, TAKEN), (i64::MIN, TAKEN)]
        .map(|(rejected, expected)| (rejecting(rejected, "\u{1b}[31m\n".to_owned()), expected))
        .into()
}

/// Sends a record for each lie, one after another, and holds what is counted against what is expected.
async fn hold(url: String, protocol: Protocol, expected: Vec<&[(Fate, u64)]>) {
    let (queue, exporter) = queue::<Empty>(Collector::new(&url, protocol).unwrap());
    let (told, mut fates) = mpsc::unbounded_channel();
    let source = Source::new("test", "cart", "1");
    let running = exporter.run(&source, |fate, count| told.send((fate, count)).unwrap());
    let checking = async {
        for (number, expected) in expected.into_iter().enumerate() {
            assert!(queue.put(Empty), "{number}");
            for expected in expected {
                assert_eq!(fates.recv().await.unwrap(), *expected, "{protocol:?} {number}");
            }
        }
    };
    tokio::select! {
        () = running => panic!("it has ended"),
        () = checking => {}
    }
}

/// Reads a request whole.
async fn read(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    stream.read_exact(&mut vec![0; length.parse().unwrap()]).await.map(drop)
}

#[tokio::test]
async fn what_an_http_collector_says_is_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = |body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let mut lies: Vec<Lie<Vec<u8>>> =
        counts().into_iter().map(|(said, expected)| (answer(&said.encode_to_vec()), expected)).collect();
    for nonsense in [
        answer(b"\xff\xff\xff\xff not protobuf"),
        answer(&vec![0x0a; 9 << 20]),
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nless".to_vec(),
        b"\0\0\0 not HTTP\r\n\r\n".to_vec(),
    ] {
        lies.extend([(nonsense, LOST), (answer(&[]), TAKEN)]);
    }
    let expected = lies.iter().map(|(_, expected)| *expected).collect();
    let lying = async {
        for (said, _) in lies {
            let (mut stream, _) = listener.accept().await.unwrap();
            read(&mut stream).await.unwrap();
            // Who has heard enough hangs up.
            let _ = stream.write_all(&said).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = hold(url, Protocol::Http, expected) => {}
        () = lying => {}
    }
}

struct Liar(Mutex<std::vec::IntoIter<ExportTraceServiceResponse>>);

#[tonic::async_trait]
impl TraceService for Liar {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let next = self.0.lock().await.next();
        next.map(Response::new).ok_or_else(|| Status::internal("no more lies"))
    }
}

#[tokio::test]
async fn what_a_grpc_collector_says_is_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut lies = counts();
    lies.push((rejecting(1, "x".repeat(9 << 20)), LOST));
    lies.push((ExportTraceServiceResponse::default(), TAKEN));
    let expected = lies.iter().map(|(_, expected)| *expected).collect();
    let liar = Liar(Mutex::new(lies.into_iter().map(|(said, _)| said).collect::<Vec<_>>().into_iter()));
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let serving =
        tonic::transport::Server::builder().add_service(TraceServiceServer::new(liar)).serve_with_incoming(incoming);
    tokio::select! {
        () = hold(url, Protocol::Grpc, expected) => {}
        ended = serving => panic!("{ended:?}"),
    }
}
