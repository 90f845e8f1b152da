//! HTTP at a port that is declared to be TCP: passed on as it is, and counted.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::metrics::value;
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
