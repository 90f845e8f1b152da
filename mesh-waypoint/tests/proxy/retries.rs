//! Where a request is sent again to, and after what.

use std::cell::Cell;
use std::rc::Rc;

use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::server::{Backend, Client, serve};
use crate::world::{CARTS, OUTSIDE, run_with};

fn virtual_service(host: &str, retries: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}, namespace: shop}}\n\
         spec: {{hosts: [{host}], http: [{{retries: {{{retries}}}, route: [{{destination: {{host: {host}}}}}]}}]}}\n"
    )
}

/// The carts, each of which answers 503.
async fn failing_carts() -> Vec<Rc<Backend>> {
    let mut backends = Vec::new();
    for cart in CARTS {
        let backend = serve(cart, 8080, false).await;
        backend.status.set(503);
        backends.push(backend);
    }
    backends
}

#[test]
fn a_retry_goes_to_an_endpoint_that_was_asked_where_the_rule_lets_it() {
    let by_user = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: cart, namespace: shop}\n\
                   spec: {host: cart, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}\n";
    for (ignores_previous, attempts) in [(true, [1, 1, 1]), (false, [0, 0, 3])] {
        let retries = format!("attempts: 2, retryOn: 5xx, backoff: 1ms, retryIgnorePreviousHosts: {ignores_previous}");
        run_with(&(virtual_service("cart", &retries) + by_user), async move |world| {
            let backends = failing_carts().await;
            let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
            let request = Request::get("/").header("host", "cart").header("x-user", "jason").body(Full::default());
            assert_eq!(client.ask(request.expect("valid")).await.status, 503);
            let mut asked: Vec<usize> = backends.iter().map(|backend| backend.seen.borrow().len()).collect();
            asked.sort_unstable();
            assert_eq!(asked, attempts, "previous hosts are ignored: {ignores_previous}");
        });
    }
}

#[test]
fn retries_are_no_more_than_their_budget() {
    let budget = |settings: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: cart, namespace: shop}}\n\
             spec: {{host: cart, trafficPolicy: {{{settings}}}}}\n"
        )
    };
    for (settings, attempts) in [
        ("retryBudget: {percent: 0, minRetryConcurrency: 0}", 1),
        ("retryBudget: {percent: 0, minRetryConcurrency: 1}", 3),
        // Of one request under way that is one retry.
        ("retryBudget: {percent: 100, minRetryConcurrency: 0}", 3),
        ("retryBudget: {percent: 0}, connectionPool: {http: {maxRetries: 0}}", 3),
    ] {
        let rules = virtual_service("cart", "attempts: 2, retryOn: 5xx, backoff: 1ms") + &budget(settings);
        run_with(&rules, async move |world| {
            let backends = failing_carts().await;
            let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
            assert_eq!(client.get("/").await.status, 503);
            let asked: usize = backends.iter().map(|backend| backend.seen.borrow().len()).sum();
            assert_eq!(asked, attempts, "{settings}");
        });
    }
}

/// A server that resets the first connections once it has heard a request, and answers by the others; how many there were.
async fn resetting(first: usize) -> Rc<Cell<usize>> {
    let listener = TcpListener::bind((OUTSIDE, 8080)).await.expect("listen");
    let accepted = Rc::new(Cell::new(0));
    let counting = accepted.clone();
    spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counting.set(counting.get() + 1);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut head).await.expect("a request") > 0);
            }
            if counting.get() <= first {
                stream.set_zero_linger().expect("linger");
                continue;
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                .await
                .expect("write");
        }
    });
    accepted
}

#[test]
fn a_reset_counts_as_a_gateways_error_and_not_as_a_failure_to_connect() {
    for (on, status, attempts) in
        [("gateway-error", 200, 3), ("reset", 200, 3), ("connect-failure", 503, 1), ("503", 503, 1)]
    {
        let retries = format!("attempts: 2, retryOn: '{on}', backoff: 1ms");
        run_with(&virtual_service("outside", &retries), async move |world| {
            let accepted = resetting(2).await;
            let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
            assert_eq!(client.get("/").await.status, status, "{on}");
            assert_eq!(accepted.get(), attempts, "{on}");
        });
    }
}
