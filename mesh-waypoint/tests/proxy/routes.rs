//! What people write for a Service, acting on live requests.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;

use crate::server::{Client, Frames, Local, read, serve, serve_carts};
use crate::world::{CARTS, OUTSIDE, World, run_with};

const SUBSETS: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec:
  host: cart
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
";

fn virtual_service(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: cart, namespace: shop}}\n\
         spec:\n  hosts: [cart]\n  http:\n{http}\n"
    )
}

async fn client(world: &World) -> Client {
    Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await
}

#[test]
fn a_canary_gets_its_share() {
    let rules = "  - route:\n    - {destination: {host: cart, subset: v1}, weight: 90}\n\
                 \x20   - {destination: {host: cart, subset: v2}, weight: 10}";
    run_with(&(SUBSETS.to_owned() + &virtual_service(rules)), async |world| {
        let backends = serve_carts().await;
        let mut client = client(&world).await;
        for _ in 0..1000 {
            assert_eq!(client.get("/").await.status, 200);
        }
        let count = |index: usize| backends[index].seen.borrow().len();
        // Of 1000 at 10 percent, five standard deviations around the mean.
        assert!((50..=150).contains(&count(2)), "v2 got {}", count(2));
        assert!(count(0).min(count(1)) > 300, "v1 is spread: {} and {}", count(0), count(1));
    });
}

#[test]
fn requests_are_matched_and_changed_as_written() {
    let rules = "
  - match: [{uri: {exact: /moved}}]
    redirect: {uri: /new, authority: other.example}
  - match: [{uri: {exact: /direct}}]
    directResponse: {status: 418, body: {string: a teapot}}
  - match: [{headers: {x-user: {exact: jason}}, uri: {prefix: /api/}}]
    rewrite: {uri: /v2/, authority: rewritten.example}
    headers:
      request: {set: {x-added: \"1\"}, remove: [x-gone]}
      response: {set: {x-seen: \"yes\"}, remove: [x-backend]}
    route: [{destination: {host: cart, subset: v2}}]
  - match: [{uri: {prefix: /name}}]
    route: [{destination: {host: cart, subset: v1}}]";
    run_with(&(SUBSETS.to_owned() + &virtual_service(rules)), async |world| {
        let backends = serve_carts().await;
        let mut client = client(&world).await;
        let moved = client.get("/moved?a=1").await;
        assert_eq!(
            (moved.status, &moved.headers["location"]),
            (301, &"http://other.example/new?a=1".parse().expect("valid"))
        );
        let direct = client.get("/direct").await;
        assert_eq!((direct.status, &direct.body[..]), (418, &b"a teapot"[..]));
        assert_eq!(client.get("/nowhere").await.status, 404);
        assert_ne!(client.get("/name").await.body, CARTS[2]);
        let request =
            Request::get("/api/items?q=1").header("host", "cart").header("x-user", "jason").header("x-gone", "1");
        let answer = client.ask(request.body(Full::default()).expect("valid")).await;
        assert_eq!((answer.status, &answer.body[..]), (200, CARTS[2].as_bytes()));
        assert_eq!(
            (answer.headers.get("x-backend"), &answer.headers["x-seen"]),
            (None, &"yes".parse().expect("valid"))
        );
        let seen = backends[2].seen.borrow();
        let last = seen.last().expect("a request");
        assert_eq!(last.uri.to_string(), "/v2/items?q=1");
        assert_eq!(last.headers["host"], "rewritten.example");
        assert_eq!((last.headers.get("x-gone"), &last.headers["x-added"]), (None, &"1".parse().expect("valid")));
    });
}

#[test]
fn what_is_no_header_field_is_not_looked_for_among_them() {
    let rules = "
  - match:
    - headers:
        uri: {exact: /never}
        method: {exact: NEVER}
        scheme: {exact: never}
        authority: {exact: never}
        x-user: {exact: jason}
      withoutHeaders: {method: {}}
    directResponse: {status: 299}
  - directResponse: {status: 204}";
    run_with(&virtual_service(rules), async |world| {
        let mut client = client(&world).await;
        let request = |user: &str, method: &str| {
            let request = Request::get("/").header("host", "cart").header("x-user", user).header("method", method);
            request.body(Full::default()).expect("valid")
        };
        assert_eq!(client.ask(request("jason", "GET")).await.status, 299);
        assert_eq!(client.ask(request("someone", "NEVER")).await.status, 204);
    });
}

#[test]
fn faults_are_injected_where_they_are_asked_for() {
    let rules = "
  - match: [{headers: {end-user: {exact: jason}}}]
    fault: {delay: {percentage: {value: 100}, fixedDelay: 0.4s}}
    route: [{destination: {host: cart}}]
  - fault: {abort: {percentage: {value: 50}, httpStatus: 555}}
    route: [{destination: {host: cart}}]";
    run_with(&virtual_service(rules), async |world| {
        serve_carts().await;
        let mut client = client(&world).await;
        let began = Instant::now();
        let request = Request::get("/").header("host", "cart").header("end-user", "jason").body(Full::default());
        assert_eq!(client.ask(request.expect("valid")).await.status, 200);
        assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
        let mut aborted = 0;
        for _ in 0..400 {
            aborted += usize::from(client.get("/").await.status == 555);
        }
        assert!((150..=250).contains(&aborted), "{aborted} of 400 at 50 percent");
    });
}

#[test]
fn each_of_many_requests_at_once_is_tried_again_as_its_route_says() {
    const AT_ONCE: usize = 40;
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: outside, namespace: shop}\nspec:\n\
                 \x20 parentRefs: [{group: '', kind: Service, name: outside}]\n  rules:\n\
                 \x20 - retry: {codes: [503], attempts: 1, backoff: 300ms}\n    backendRefs: [{name: outside, port: 80}]\n";
    run_with(route, async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        backend.status.set(503);
        // Their pauses pass together: each holds its place in the budget of retries meanwhile.
        let (done, mut ended) = tokio::sync::mpsc::channel(AT_ONCE);
        for _ in 0..AT_ONCE {
            let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
            let done = done.clone();
            spawn_local(async move { done.send(client.get("/").await.status).await });
        }
        for _ in 0..AT_ONCE {
            assert_eq!(ended.recv().await, Some(503));
        }
        assert_eq!(backend.seen.borrow().len(), 2 * AT_ONCE, "one attempt and one retry each");
        backend.status.set(500);
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        assert_eq!(client.get("/").await.status, 500);
        assert_eq!(backend.seen.borrow().len(), 2 * AT_ONCE + 1, "500 is none of its codes");
    });
}

#[test]
fn attempts_are_made_again_as_often_as_written_with_the_same_body() {
    let rules = "
  - retries: {attempts: 3, perTryTimeout: 2s, retryOn: 5xx, backoff: 1ms}
    route: [{destination: {host: cart, subset: v2}}]";
    run_with(&(SUBSETS.to_owned() + &virtual_service(rules)), async |world| {
        let backend = serve(CARTS[2], 8080, false).await;
        backend.status.set(503);
        let mut client = client(&world).await;
        let post = |path: &str, body: &Bytes| {
            Request::post(path).header("host", "cart").body(Full::new(body.clone())).expect("valid")
        };
        let body = Bytes::from_static(b"all of it");
        let answer = client.ask(post("/echo", &body)).await;
        assert_eq!((answer.status, answer.body), (503, body), "the last attempt had the whole body");
        assert_eq!(backend.seen.borrow().len(), 4, "one attempt and three retries");
        let count =
            backend.seen.borrow().iter().filter_map(|head| head.headers.get("x-envoy-attempt-count").cloned()).last();
        assert_eq!(count.expect("counted"), "4");
        // What is too long to be kept is said once.
        backend.seen.borrow_mut().clear();
        let long = Bytes::from(vec![b'x'; 200_000]);
        let answer = client.ask(post("/echo", &long)).await;
        assert_eq!((answer.status, answer.body.len()), (503, long.len()));
        assert_eq!(backend.seen.borrow().len(), 1);
    });
}

#[test]
fn a_body_that_says_no_length_is_sent_again_and_copied_while_it_is_short() {
    let rules = "
  - retries: {attempts: 3, retryOn: 5xx, backoff: 1ms}
    mirrors: [{destination: {host: outside}}]
    route: [{destination: {host: cart, subset: v2}}]";
    static LONG: [u8; 20_000] = [b'x'; 20_000];
    run_with(&(SUBSETS.to_owned() + &virtual_service(rules)), async |world| {
        let backend = serve(CARTS[2], 8080, true).await;
        let copied = serve(OUTSIDE, 8080, true).await;
        backend.status.set(503);
        let tunnel = world.tunnel("10.96.0.1:80").await.expect("tunnel");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(Local, TokioIo::new(tunnel)).await.expect("handshake");
        spawn_local(connection);
        for (parts, length, attempts, copies) in
            [(vec![&b"all "[..], b"of it"], 9, 4, 1), (vec![&LONG[..]; 4], 80_000, 1, 1)]
        {
            backend.seen.borrow_mut().clear();
            let request = Request::post("http://cart.shop/read").body(Frames::of(&parts)).expect("valid");
            let answer = read(sender.send_request(request).await.expect("an answer")).await.expect("a whole body");
            assert_eq!((answer.status, answer.body.len()), (503, length), "the last attempt had the whole body");
            assert_eq!(backend.seen.borrow().len(), attempts, "a body of {length} octets");
            while copied.seen.borrow().len() < copies {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        assert_eq!(copied.seen.borrow().len(), 1, "what is too long is not copied");
    });
}

#[test]
fn a_request_that_takes_too_long_is_answered_504() {
    let rules = "  - timeout: 0.3s\n    route: [{destination: {host: cart}}]";
    run_with(&virtual_service(rules), async |world| {
        serve_carts().await;
        let answer = client(&world).await.get("/never").await;
        assert_eq!((answer.status, &answer.body[..]), (504, &b"upstream request timeout"[..]));
    });
}

#[test]
fn an_endpoint_that_fails_is_left_out_and_comes_back() {
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec:
  host: cart
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 1s, maxEjectionPercent: 50}
---
";
    let rules = "  - retries: {attempts: 0}\n    route: [{destination: {host: cart}}]";
    run_with(&(rule.to_owned() + &virtual_service(rules)), async |world| {
        let backends = serve_carts().await;
        backends[0].status.set(500);
        let mut client = client(&world).await;
        let mut failed = 0;
        for _ in 0..30 {
            failed += usize::from(client.get("/").await.status == 500);
        }
        assert_eq!(failed, 3, "ejected after three in a row");
        backends[0].status.set(200);
        let before = backends[0].seen.borrow().len();
        while backends[0].seen.borrow().len() == before {
            assert_eq!(client.get("/").await.status, 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn more_than_may_be_under_way_is_answered_503_at_once() {
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: outside, namespace: shop}
spec:
  host: outside
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}
";
    run_with(rule, async |world| {
        let backend = serve(OUTSIDE, 8080, false).await;
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        spawn_local(async move { drop(client.get("/never").await) });
        while backend.seen.borrow().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // One of these waits for the connection, and the others are too many.
        let (answers, mut answered) = tokio::sync::mpsc::channel(3);
        for _ in 0..3 {
            let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
            let answers = answers.clone();
            spawn_local(async move { answers.send(client.get("/").await).await });
        }
        for _ in 0..2 {
            let answer = tokio::time::timeout(Duration::from_secs(5), answered.recv()).await.expect("at once");
            let answer = answer.expect("an answer");
            assert_eq!(answer.status, 503);
            assert!(String::from_utf8_lossy(&answer.body).contains("overflow"), "{:?}", answer.body);
        }
        assert_eq!(backend.connections.get(), 1);
    });
}

#[test]
fn requests_share_a_connection_of_http2_while_there_are_no_more_than_may_be() {
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: outside, namespace: shop}
spec:
  host: outside
  trafficPolicy:
    connectionPool: {http: {h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 2}}
";
    run_with(rule, async |world| {
        let backend = serve(OUTSIDE, 8080, true).await;
        for requests in 1..=5 {
            // One after the other, by one client of the same thread.
            let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
            spawn_local(async move { drop(client.get("/never").await) });
            while backend.seen.borrow().len() < requests {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        assert_eq!(backend.connections.get(), 3);
    });
}

#[test]
fn a_change_of_routes_acts_on_open_connections() {
    run_with("", async |world| {
        serve_carts().await;
        let mut client = client(&world).await;
        assert_eq!(client.get("/").await.status, 200);
        world.configure(&virtual_service("  - directResponse: {status: 418}"));
        while client.get("/").await.status != 418 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        world.configure("");
        while client.get("/").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn copies_go_where_they_are_asked_for_and_nobody_waits_for_them() {
    let rules = "  - match: [{uri: {prefix: /half}}]\n    route: [{destination: {host: cart}}]\n    \
                 mirror: {host: outside}\n    mirrorPercentage: {value: 50}\n\
                 \x20 - route: [{destination: {host: cart}}]\n    mirrors: [{destination: {host: outside}, percentage: {value: 100}}]";
    run_with(&virtual_service(rules), async |world| {
        let copied = serve(OUTSIDE, 8080, false).await;
        copied.status.set(500);
        serve_carts().await;
        let mut client = client(&world).await;
        let request = Request::post("/echo").header("host", "cart.shop").body(Full::new(Bytes::from("body")));
        let answer = client.ask(request.expect("valid")).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"body"[..]), "the copy's answer is nobody's");
        let seen = async |path: &str, count: usize| {
            let by_path = || copied.seen.borrow().iter().filter(|head| head.uri.path() == path).count();
            while by_path() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            by_path()
        };
        assert_eq!(seen("/echo", 1).await, 1);
        assert_eq!(copied.seen.borrow()[0].headers["host"], "cart.shop-shadow");
        // A copy that is never answered keeps nobody waiting.
        copied.status.set(200);
        assert_eq!(client.get("/name").await.status, 200);
        for _ in 0..200 {
            assert_eq!(client.get("/half").await.status, 200);
        }
        assert_eq!(client.get("/last").await.status, 200);
        seen("/last", 1).await;
        // Copies overtake one another: half of 200, five standard deviations to either side.
        let half = seen("/half", 60).await;
        assert!((60..=140).contains(&half), "{half} of 200");
        // A body that is too long to be held is not copied.
        let long = Full::new(Bytes::from(vec![0; 70_000]));
        let request = Request::post("/echo").header("host", "cart.shop").body(long).expect("valid");
        assert_eq!(client.ask(request).await.body.len(), 70_000);
        assert_eq!(client.get("/end").await.status, 200);
        seen("/end", 1).await;
        assert_eq!(seen("/echo", 1).await, 1);
    });
}

#[test]
fn what_is_delegated_is_done_within_the_bounds_of_its_root() {
    let root = "
  - match: [{uri: {prefix: /api}, headers: {x-user: {prefix: j}}}]
    headers: {request: {set: {x-root: \"1\"}}}
    delegate: {name: api, namespace: team}
  - directResponse: {status: 418}";
    let delegate = "\n---\napiVersion: networking.istio.io/v1beta1\nkind: VirtualService\n\
        metadata: {name: api, namespace: team}\nspec:\n  http:\n\
        \x20 - match: [{uri: {prefix: /api/v2}, headers: {x-user: {exact: jason}}}]\n\
        \x20   route: [{destination: {host: cart.shop.svc.cluster.local, subset: v2}}]\n\
        \x20 - match: [{uri: {prefix: /other}}]\n    directResponse: {status: 299}\n\
        \x20 - match: [{method: {exact: DELETE}}]\n    directResponse: {status: 204}\n";
    run_with(&(SUBSETS.to_owned() + &virtual_service(root) + delegate), async |world| {
        let backend = serve(CARTS[2], 8080, false).await;
        let mut client = client(&world).await;
        let ask = |method: &str, path: &str, user: &str| {
            let request = Request::builder().method(method).uri(path).header("host", "cart").header("x-user", user);
            request.body(Full::<Bytes>::default()).expect("valid")
        };
        let answer = client.ask(ask("GET", "/api/v2/items", "jason")).await;
        assert_eq!((answer.status, &answer.body[..]), (200, CARTS[2].as_bytes()));
        assert_eq!(backend.seen.borrow().last().expect("a request").headers["x-root"], "1", "what the root says");
        for (method, path, user, status) in [
            ("GET", "/api/v2/items", "jim", 418),    // the delegate's own match
            ("DELETE", "/api/v1/items", "jim", 204), // the root's match, and the delegate's method
            ("DELETE", "/api/v1/items", "ann", 418), // not the root's
            ("DELETE", "/items", "jason", 418),
            ("GET", "/other", "jason", 418), // the delegate asks for what the root has not
        ] {
            assert_eq!(client.ask(ask(method, path, user)).await.status, status, "{method} {path} {user}");
        }
        // A change of the delegate alone is a change of the root.
        let changed = delegate.replace("204", "205");
        world.configure(&(SUBSETS.to_owned() + &virtual_service(root) + &changed));
        while client.ask(ask("DELETE", "/api/v1/items", "jim")).await.status != 205 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}
