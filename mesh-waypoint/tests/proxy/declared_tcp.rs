//! What a port that is declared to be TCP carries: passed on as it is, and told of, with the HTTP that is in it.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::access_logs::connection_line;
use crate::metrics::{scrape, value};
use crate::server::{Client, serve};
use crate::world::{CARTS, World, run_with};

const CART: [(&str, &str); 4] = [
    ("reporter", "waypoint"),
    ("source_workload", "client-1"),
    ("destination_service", "cart.shop.svc.cluster.local"),
    ("destination_app", "cart"),
];

async fn counted(more: &[(&str, &str)]) -> f64 {
    value("istio_requests_total", &[&CART[..], more].concat()).await
}

#[test]
fn requests_that_only_pass_are_counted_as_they_were_answered() {
    run_with("", async |world: World| {
        for cart in CARTS {
            serve(cart, 9090, false).await;
        }
        let mut client = Client::http1(world.tunnel("10.96.0.1:90").await.expect("tunnel")).await;
        for _ in 0..5 {
            assert_eq!(client.get("/name").await.status, 200);
        }
        // What is written to the client is counted first.
        assert_eq!(counted(&[("response_code", "200"), ("request_protocol", "http")]).await, 5.0);

        // What is no HTTP is no request.
        let mut bytes = world.tunnel("10.96.0.1:90").await.expect("tunnel");
        bytes.write_all(b"\x16\x03\x01 no request\r\n\r\n").await.expect("write");
        bytes.shutdown().await.expect("end");
        let mut rest = Vec::new();
        // Whether the server says what is wrong or resets is its own.
        let _ = bytes.read_to_end(&mut rest).await;
        assert_eq!(counted(&[]).await, 5.0);
    });
}

async fn of_connections(metric: &str, more: &[(&str, &str)]) -> f64 {
    value(&format!("istio_tcp_{metric}_total"), &[&CART[..3], more].concat()).await
}

/// Waits until so many are counted.
async fn comes_to(metric: &str, more: &[(&str, &str)], count: f64) {
    while of_connections(metric, more).await != count {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Whether a line says of its connection what the only series with these response flags says.
async fn has_the_labels_of_its_metrics(line: &Value) {
    let (_, series) = scrape("/metrics").await;
    let mut series = series.iter().filter(|series| {
        series.metric == "istio_tcp_connections_closed_total"
            && series.labels.get("response_flags").is_some_and(|flags| *flags == line["response_flags"])
    });
    let (Some(series), None) = (series.next(), series.next()) else { panic!("not one series: {series:?}") };
    assert_eq!(series.labels.len(), 23, "{series:?}");
    for (label, value) in &series.labels {
        assert_eq!(line[label.as_str()], **value, "{label} of {line}");
    }
}

#[test]
fn a_connection_is_counted_while_it_lives_and_is_a_line_at_its_end() {
    run_with("", async |world: World| {
        for cart in CARTS {
            let listener = TcpListener::bind((cart, 9090)).await.expect("the cart's port");
            spawn_local(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    spawn_local(async move {
                        let (mut read, mut write) = stream.split();
                        // A client that resets is told of by the waypoint.
                        let _ = tokio::io::copy(&mut read, &mut write).await;
                    });
                }
            });
        }
        let app = [("destination_app", "cart")];
        let mut bytes = world.tunnel("10.96.0.1:90").await.expect("tunnel");
        bytes.write_all(b"echo").await.expect("write");
        let mut echo = [0; 4];
        bytes.read_exact(&mut echo).await.expect("an echo");
        comes_to("received_bytes", &app, 4.0).await;
        comes_to("sent_bytes", &app, 4.0).await;
        let mut standing = Vec::new();
        for metric in ["connections_opened", "connections_closed"] {
            standing.push(of_connections(metric, &app).await);
        }
        assert_eq!(standing, [1.0, 0.0]);

        bytes.shutdown().await.expect("end");
        assert_eq!(bytes.read(&mut echo).await.expect("the server's end"), 0);
        comes_to("connections_closed", &app, 1.0).await;
        let line = connection_line(&world, "closed").await;
        has_the_labels_of_its_metrics(&line).await;
        let told = ["bytes_received", "bytes_sent"].map(|field| line[field].as_u64());
        assert_eq!((told, &line["error"]), ([Some(4), Some(4)], &Value::Null));
        assert_eq!(line["upstream_cluster"], "cart.shop.svc.cluster.local:90");
        assert!(line["upstream_host"].as_str().is_some_and(|host| host.ends_with(":9090")), "{line}");
    });
}

#[test]
fn a_connection_that_comes_about_nowhere_is_counted_and_told_with_its_reason() {
    run_with("", async |world: World| {
        // Nobody listens at that port.
        assert!(world.tunnel("10.96.0.1:90").await.is_err());
        let failed = [("response_flags", "UF")];
        comes_to("connections_closed", &failed, 1.0).await;
        assert_eq!(of_connections("connections_opened", &failed).await, 1.0);
        let line = connection_line(&world, "refused").await;
        has_the_labels_of_its_metrics(&line).await;
        let error = line["error"].as_str().expect("an error");
        assert!(error.starts_with("upstream connection failure"), "{line}");
    });
}
