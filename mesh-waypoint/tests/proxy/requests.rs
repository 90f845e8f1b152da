//! Requests through a waypoint that nobody has told anything.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::server::{Client, serve};
use crate::world::{CARTS, OUTSIDE, OUTSIDE_SERVICE, STRANGER, authorization, run, run_with};

#[test]
fn requests_reach_the_endpoints_by_tunnels_and_spread_over_them() {
    run(async |world| {
        for http2 in [false, true] {
            let port = if http2 { 9595 } else { 8080 };
            let mut backends = Vec::new();
            for cart in CARTS {
                backends.push(serve(cart, port, http2).await);
            }
            let target = if http2 { "10.96.0.1:95" } else { "cart.shop.svc.cluster.local:80" };
            let mut client = Client::of(http2, world.tunnel(target).await.expect("tunnel")).await;
            let mut names = HashSet::new();
            for _ in 0..60 {
                let answer = client.get("/name").await;
                assert_eq!(answer.status, 200);
                names.insert(answer.body);
            }
            assert_eq!(names.len(), 3, "http2 {http2}: {names:?}");
            for backend in &backends {
                assert_eq!(backend.connections.get(), 1, "one connection serves one client's requests");
            }
        }
        let tunnels = world.tunnels.borrow();
        assert!(tunnels.iter().all(|(peer, _)| peer.as_str().ends_with("/sa/waypoint")), "{tunnels:?}");
    });
}

#[test]
fn an_endpoint_outside_the_mesh_is_reached_as_plaintext() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        assert_eq!(client.get("/").await.body, OUTSIDE);
        assert_eq!((backend.seen.borrow().len(), world.tunnels.borrow().len()), (1, 0));
    });
}

#[test]
fn fields_say_who_the_client_is_and_not_what_it_claims() {
    run(async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        let request = Request::get("/?q=1")
            .header("host", "Outside.shop:80")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("x-kept", "2")
            .header("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/bank/sa/boss");
        let answer = client.ask(request.body(Full::default()).expect("valid")).await;
        assert!(answer.headers.get("keep-alive").is_none(), "{:?}", answer.headers);
        let seen = backend.seen.borrow();
        let field = |name: &str| seen[0].headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(seen[0].uri.to_string(), "/?q=1");
        assert_eq!((field("host"), field("x-hop"), field("x-kept")), (Some("Outside.shop:80"), None, Some("2")));
        let certificate = field("x-forwarded-client-cert").expect("set");
        assert!(certificate.ends_with(";URI=spiffe://cluster.local/ns/shop/sa/client"), "{certificate}");
        assert_eq!(field("x-forwarded-proto"), Some("http"));
        assert_eq!(field("x-request-id").map(str::len), Some(36));
    });
}

#[test]
fn bodies_and_trailers_pass_both_ways() {
    run(async |world| {
        for http2 in [false, true] {
            let port = if http2 { 9595 } else { 8080 };
            for cart in CARTS {
                serve(cart, port, http2).await;
            }
            let target = if http2 { "10.96.0.1:95" } else { "10.96.0.1:80" };
            let mut client = Client::of(http2, world.tunnel(target).await.expect("tunnel")).await;
            let body = Bytes::from((0..3_000_000_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>());
            let request = Request::post("/echo").header("host", "cart.shop").body(Full::new(body.clone()));
            assert_eq!(client.ask(request.expect("valid")).await.body, body, "http2 {http2}");
            let request = Request::get("/trailers").header("host", "cart.shop").header("te", "trailers");
            let request = if http2 { request } else { request.header("connection", "te") };
            let answer = client.ask(request.body(Full::default()).expect("valid")).await;
            assert_eq!(answer.body, "message");
            if http2 {
                assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "0");
            }
        }
    });
}

#[test]
fn a_connection_becomes_something_else_where_both_agree() {
    run(async |world| {
        serve(OUTSIDE, 8080, false).await;
        let mut stream = world.tunnel("10.96.0.2:80").await.expect("tunnel");
        let request = b"GET /ws HTTP/1.1\r\nhost: outside\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nfirst";
        stream.write_all(request).await.expect("write");
        let mut text = Vec::new();
        while !text.ends_with(b"first") {
            assert!(stream.read_buf(&mut text).await.expect("read") > 0, "{}", String::from_utf8_lossy(&text));
        }
        let head = String::from_utf8_lossy(&text).to_lowercase();
        assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: echo"), "{head}");
        stream.write_all(b"second").await.expect("write");
        let mut second = [0; 6];
        stream.read_exact(&mut second).await.expect("read");
        assert_eq!(&second, b"second");
    });
}

#[test]
fn what_is_no_http_passes_as_bytes() {
    run(async |world| {
        for (target, port, server_first) in [("10.96.0.1:90", 9090, true), ("10.96.0.1:95", 9595, false)] {
            for cart in CARTS {
                let listener = TcpListener::bind((cart, port)).await.expect("listen");
                spawn_local(async move {
                    while let Ok((mut stream, _)) = listener.accept().await {
                        spawn_local(async move {
                            if server_first {
                                stream.write_all(b"hello\n").await.expect("write");
                            }
                            let (mut read, mut write) = stream.split();
                            let _ = tokio::io::copy(&mut read, &mut write).await;
                        });
                    }
                });
            }
            let mut stream = world.tunnel(target).await.expect("tunnel");
            let expected: &[u8] = if server_first { b"hello\nPING\r\n" } else { b"PING\r\n" };
            stream.write_all(b"PING\r\n").await.expect("write");
            stream.shutdown().await.expect("half-close");
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.expect("read");
            assert_eq!(read, expected, "half-close stays half-close");
        }
    });
}

#[test]
fn a_waypoint_takes_nothing_but_what_it_stands_before() {
    run(async |world| {
        for target in
            ["10.96.0.4:80", "10.96.0.1:81", "10.96.0.99:80", "gone.shop.svc.cluster.local:80", "192.0.2.1:80"]
        {
            assert_eq!(world.tunnel(target).await.err(), Some(Some(http::StatusCode::BAD_REQUEST)), "{target}");
        }
    });
}

#[test]
fn a_pods_own_address_is_reached_through_its_waypoint() {
    run(async |world| {
        serve(CARTS[1], 8080, false).await;
        let target = format!("{}:8080", CARTS[1]);
        let tunnel = world.tunnel_from(STRANGER, "stranger", &target).await.expect("tunnel");
        assert_eq!(Client::http1(tunnel).await.get("/").await.body, CARTS[1]);
    });
}

#[test]
fn an_endpoint_that_comes_is_used_at_once() {
    run(async |world| {
        serve(OUTSIDE, 8080, false).await;
        let mut client = Client::http1(world.tunnel("10.96.0.3:80").await.expect("tunnel")).await;
        assert_eq!(client.get("/").await.status, 503);
        world.configure(
            "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: empty, namespace: shop, labels: {kubernetes.io/service-name: empty}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.21]}]
",
        );
        while client.get("/").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn policies_of_the_service_are_asked_however_a_path_is_written() {
    let policy = authorization(OUTSIDE_SERVICE, "DENY", "{to: [{operation: {paths: [/admin]}}]}");
    run_with(&policy, async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        for path in
            ["/admin", "/%61dmin", "/x/../admin", "/./admin", "/admin;x", "/admin;", "/x/..;/admin", "/%61dmin%3bx=1"]
        {
            let answer = client.get(path).await;
            assert_eq!((answer.status, &answer.body[..]), (403, &b"RBAC: access denied"[..]), "{path}");
        }
        assert!(backend.seen.borrow().is_empty());
        assert_eq!(client.get("/a/../public?q=%41").await.status, 200);
        assert_eq!(backend.seen.borrow()[0].uri.to_string(), "/public?q=%41", "what was judged is what goes on");
    });
}
