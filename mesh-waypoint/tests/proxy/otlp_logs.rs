//! Lines of requests, and spans, to collectors that the mesh configuration has and a Telemetry names.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tonic::transport::server::TcpIncoming;

use crate::access_logs::line;
use crate::metrics::{LABELS, value};
use crate::server::{Client, serve_carts};
use crate::world::{OUTSIDE, World, run_with};

/// What a collector was sent.
struct Collected {
    came: RefCell<mpsc::UnboundedReceiver<ExportLogsServiceRequest>>,
    requests: RefCell<Vec<ExportLogsServiceRequest>>,
}

struct Keeper(mpsc::UnboundedSender<ExportLogsServiceRequest>);

#[tonic::async_trait]
impl LogsService for Keeper {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        // A test that has ended wants none.
        let _ = self.0.send(request.into_inner());
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

impl Collected {
    fn new(came: mpsc::UnboundedReceiver<ExportLogsServiceRequest>) -> Rc<Self> {
        Rc::new(Self { came: RefCell::new(came), requests: RefCell::default() })
    }

    /// One that is spoken to by gRPC.
    async fn by_grpc() -> Rc<Self> {
        let listener = TcpListener::bind((OUTSIDE, 4317)).await.expect("the collector's port");
        let (sender, came) = mpsc::unbounded_channel();
        let server = tonic::transport::Server::builder().add_service(LogsServiceServer::new(Keeper(sender)));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Self::new(came)
    }

    /// One that is spoken to by HTTP, at that path.
    async fn by_http(path: &'static str) -> Rc<Self> {
        let listener = TcpListener::bind((OUTSIDE, 4318)).await.expect("the collector's port");
        let (sender, came) = mpsc::unbounded_channel();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let sender = sender.clone();
                    async move {
                        assert_eq!(request.uri().path(), path);
                        let body = request.into_body().collect().await.expect("a body").to_bytes();
                        let _ = sender.send(ExportLogsServiceRequest::decode(body).expect("OTLP"));
                        let answer = ExportLogsServiceResponse::default().encode_to_vec();
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer))))
                    }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                spawn_local(connection);
            }
        });
        Self::new(came)
    }

    /// Waits until so many records have come, and gives all.
    #[expect(clippy::await_holding_refcell_ref, reason = "one task waits")]
    async fn records(&self, count: usize) -> Vec<LogRecord> {
        loop {
            let all: Vec<LogRecord> = {
                let requests = self.requests.borrow();
                let scopes = requests.iter().flat_map(|it| &it.resource_logs).flat_map(|it| &it.scope_logs);
                scopes.flat_map(|scope| scope.log_records.clone()).collect()
            };
            if all.len() >= count {
                return all;
            }
            let next = self.came.borrow_mut().recv().await.expect("the collector runs");
            self.requests.borrow_mut().push(next);
        }
    }
}

fn attribute(record: &LogRecord, key: &str) -> Option<String> {
    let found = record.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn manifests(provider: &str, logging: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    extensionProviders:\n    - name: otel\n      {provider}\n\
---
apiVersion: v1
kind: Service
metadata: {{name: collector, namespace: shop, labels: {{istio.io/use-waypoint: none}}}}
spec: {{clusterIP: 10.96.0.40, ports: [{{name: grpc, port: 4317}}, {{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: collector, namespace: shop, labels: {{kubernetes.io/service-name: collector}}}}
addressType: IPv4
ports: [{{name: grpc, port: 4317}}, {{name: http, port: 4318}}]
endpoints: [{{addresses: [{OUTSIDE}]}}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {{name: cart, namespace: shop}}
spec:
  accessLogging:
{logging}
"
    )
}

const BY_GRPC: &str = "envoyOtelAls: {service: collector.shop.svc.cluster.local, port: 4317, logName: requests}";

async fn client(world: &World) -> Client {
    serve_carts().await;
    Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await
}

#[test]
fn a_collector_has_the_fields_whatever_the_format_of_standard_output() {
    let provider = format!("{BY_GRPC}\n    accessLogFormat: 'said %REQ(:PATH)%'");
    run_with(&manifests(&provider, "  - providers: [{name: envoy}, {name: otel}]"), async |world: World| {
        let collected = Collected::by_grpc().await;
        assert_eq!(client(&world).await.get("/a").await.status, 200);
        let records = collected.records(1).await;
        for (key, expected) in [("path", "/a"), ("response_code", "200")] {
            assert_eq!(attribute(&records[0], key).as_deref(), Some(expected), "{key}: {records:?}");
        }
        world.logged("said /a").await;
    });
}

#[test]
fn lines_go_to_the_collector_by_grpc_beside_standard_output() {
    run_with(&manifests(BY_GRPC, "  - providers: [{name: envoy}, {name: otel}]"), async |world: World| {
        let collected = Collected::by_grpc().await;
        let mut client = client(&world).await;
        for path in ["/a", "/b", "/c"] {
            assert_eq!(client.get(path).await.status, 200);
        }
        let records = collected.records(3).await;
        for (record, path) in records.iter().zip(["/a", "/b", "/c"]) {
            let told = [("path", path), ("method", "GET"), ("response_code", "200"), ("source_workload", "client-1")];
            for (key, expected) in told {
                assert_eq!(attribute(record, key).as_deref(), Some(expected), "{key}: {record:?}");
            }
            let labels = LABELS.iter().filter(|label| attribute(record, label).is_none()).collect::<Vec<_>>();
            assert!(labels.is_empty(), "no attributes: {labels:?}");
            assert!(record.time_unix_nano > 0 && record.severity_number == 9, "{record:?}");
        }
        let resource = collected.requests.borrow()[0].resource_logs[0].resource.clone().expect("a resource");
        let of_resource = |key: &str| resource.attributes.iter().find(|it| it.key == key).cloned();
        assert!(of_resource("service.name").is_some() && of_resource("log_name").is_some(), "{resource:?}");
        assert_eq!(line(&world, "/c").await["response_code"], 200);
        while value("mesh_log_lines_total", &[("result", "exported")]).await != 3.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn lines_of_connections_go_to_the_collector_too() {
    run_with(&manifests(BY_GRPC, "  - providers: [{name: otel}]"), async |world: World| {
        let collected = Collected::by_grpc().await;
        assert!(world.tunnel("10.96.0.1:90").await.is_err(), "nobody listens there");
        let records = collected.records(1).await;
        for (key, expected) in [("end", "refused"), ("response_flags", "UF"), ("source_workload", "client-1")] {
            assert_eq!(attribute(&records[0], key).as_deref(), Some(expected), "{key}: {records:?}");
        }
    });
}

#[test]
fn lines_go_by_http_and_only_those_that_the_filter_admits() {
    let provider = "opentelemetry: {service: shop/collector.shop.svc.cluster.local, port: 80, http: {path: /in/logs}}";
    let logging = "  - {providers: [{name: otel}], filter: {expression: \"request.url_path != '/quiet'\"}}";
    run_with(&manifests(provider, logging), async |world: World| {
        let collected = Collected::by_http("/in/logs").await;
        let mut client = client(&world).await;
        for path in ["/quiet", "/loud", "/quiet", "/last"] {
            assert_eq!(client.get(path).await.status, 200);
        }
        let records = collected.records(2).await;
        let paths: Vec<_> = records.iter().filter_map(|record| attribute(record, "path")).collect();
        assert_eq!(paths, ["/loud", "/last"]);
        let is_told = world.log.lock().expect("log").iter().any(|line| line.contains("\"path\":\"/loud\""));
        assert!(!is_told, "standard output is another provider, which nobody names");
    });
}

#[test]
fn a_collector_that_is_away_costs_lines_which_are_counted_and_no_request() {
    const REQUESTS: usize = 3_000;
    run_with(&manifests(BY_GRPC, "  - providers: [{name: otel}]"), async |world: World| {
        let mut client = client(&world).await;
        for _ in 0..REQUESTS {
            assert_eq!(client.get("/").await.status, 200);
        }
        let lost = async || {
            let of = async |result| value("mesh_log_lines_total", &[("result", result)]).await;
            (of("dropped").await, of("failed").await)
        };
        while lost().await.0 == 0.0 {
            assert_eq!(client.get("/").await.status, 200);
        }
        while lost().await.1 == 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // It comes, and what is new is taken.
        let collected = Collected::by_grpc().await;
        let mut number = 0;
        loop {
            number += 1;
            assert_eq!(client.get(&format!("/again-{number}")).await.status, 200);
            let came = tokio::time::timeout(Duration::from_millis(500), collected.records(1)).await;
            if came.is_ok() {
                break;
            }
        }
    });
}
