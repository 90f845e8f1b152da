//! Values of header fields with something to fill in, on live requests.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;

use crate::gateway::{Certificate, GATEWAY, gateway, get};
use crate::server::{Backend, Client, serve};
use crate::world::{CARTS, OUTSIDE, WAYPOINT, run_as, run_with};

const RULES: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart]
  http:
  - match: [{uri: {exact: /here}}]
    headers: {response: {set: {x-here: '%RESPONSE_CODE% by %PROTOCOL%'}}}
    directResponse: {status: 299}
  - headers:
      request:
        set:
          x-client: '%DOWNSTREAM_REMOTE_ADDRESS%'
          x-client-ip: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'
          x-local: '%DOWNSTREAM_LOCAL_ADDRESS%'
          x-who: '%DOWNSTREAM_PEER_URI_SAN%'
          x-asked: '%REQ(:METHOD)% %REQ(:AUTHORITY)%%REQ(X-ORIGINAL?:PATH)% %PROTOCOL%'
          x-user: 'user=%REQ(x-name?x-id):3%;'
          x-share: 50%%
          x-began: '%START_TIME(%s)%'
          x-moment: '%START_TIME%'
          x-host: '%HOSTNAME%'
          x-absent: '%REQ(x-nothing)%'
          x-large: '%REQ(x-big)%%REQ(x-big)%'
          x-unknown: '%UPSTREAM_CLUSTER%'
        add: {x-more: '%REQ(x-nothing)%', x-also: '<%REQ(x-nothing)%>'}
      response:
        set: {x-told: '%RESPONSE_CODE% of %UPSTREAM_HOST% for %REQ(x-who)%, %RESP(x-none?x-backend)%'}
        remove: [x-none]
    route: [{destination: {host: cart}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: outside, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: outside}]
  rules:
  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-literal, value: '%PROTOCOL% 50%'}]}}]
    backendRefs: [{name: outside, port: 80}]
";

const BIG: usize = 5_000;

/// Asks as a client that has put into fields what only the waypoint may say.
fn request(path: &str) -> Request<Full<Bytes>> {
    let forged = ["x-client", "x-who", "x-host", "x-absent", "x-large", "x-unknown"];
    let request =
        Request::get(path).header("host", "cart.shop").header("x-id", "jason").header("x-big", "b".repeat(BIG));
    let request = forged.iter().fold(request, |request, name| request.header(*name, "forged"));
    request.body(Full::default()).expect("valid")
}

fn seen(backend: &Backend, name: &str) -> Option<String> {
    let seen = backend.seen.borrow();
    let value = seen.last().expect("a request").headers.get(name);
    value.map(|value| value.to_str().expect("text").to_owned())
}

#[test]
fn operators_in_values_stand_for_what_is_known_of_the_request() {
    for (is_http2, protocol) in [(false, "HTTP/1.1"), (true, "HTTP/2")] {
        run_with(RULES, async move |world| {
            let cart = serve(CARTS[0], 8080, is_http2).await;
            let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after it").as_secs();
            let from = seconds();
            let mut client = Client::of(is_http2, world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
            let here = client.ask(request("/here")).await;
            let told = here.headers["x-here"].to_str().expect("text");
            assert_eq!((here.status, told), (299, &*format!("299 by {protocol}")));
            // The other endpoints have no server: those are passed over.
            let answer = client.ask(request("/a?b=c")).await;
            let who = "spiffe://cluster.local/ns/shop/sa/client";
            let told = format!("200 of {}:8080 for {who}, {}", CARTS[0], CARTS[0]);
            assert_eq!((answer.status, answer.headers["x-told"].to_str().expect("text")), (200, &*told));
            for (name, value) in [
                ("x-client", "10.1.0.1:40000"),
                ("x-client-ip", "10.1.0.1"),
                ("x-local", "10.96.0.1:80"),
                ("x-who", who),
                ("x-asked", &format!("GET cart.shop/a?b=c {protocol}")),
                ("x-user", "user=jas;"),
                ("x-share", "50%"),
                ("x-also", "<>"),
            ] {
                assert_eq!(seen(&cart, name).as_deref(), Some(value), "{name} by {protocol}");
            }
            for name in ["x-absent", "x-large", "x-unknown", "x-more"] {
                assert_eq!(seen(&cart, name), None, "{name} by {protocol}");
            }
            let began: u64 = seen(&cart, "x-began").and_then(|text| text.parse().ok()).expect("seconds");
            assert!((from..=seconds()).contains(&began), "{began}");
            let moment = seen(&cart, "x-moment").expect("a moment");
            assert!(moment.len() == "2020-02-29T00:00:00.007Z".len() && moment.ends_with('Z'), "{moment}");
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
            assert_eq!(seen(&cart, "x-host").as_deref(), Some(host.trim()));
        });
    }
}

#[test]
fn no_value_of_a_clients_adds_a_field_and_the_gateway_apis_values_are_literal() {
    run_with(RULES, async |world| {
        let (cart, outside) = (serve(CARTS[0], 8080, false).await, serve(OUTSIDE, 8080, false).await);
        let mut client = Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await;
        let odd = HeaderValue::from_bytes(b"%PROTOCOL%\xff\t").expect("octets that may be there");
        let odd = Request::get("/").header("host", "cart.shop").header("x-nothing", odd);
        let odd = odd.body(Full::default()).expect("valid");
        assert_eq!(client.ask(odd).await.status, 200);
        let value = cart.seen.borrow().last().expect("a request").headers["x-absent"].as_bytes().to_vec();
        assert_eq!(String::from_utf8(value).expect("UTF-8"), "%PROTOCOL%\u{fffd}", "it is nobody's operator");
        let mut client = Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await;
        assert_eq!(client.ask(request("/")).await.status, 200);
        assert_eq!(seen(&outside, "x-literal").as_deref(), Some("%PROTOCOL% 50%"));
    });
}

const AT_THE_GATEWAY: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 8000, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 4430, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: MUTUAL, credentialName: cert}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec:
  hosts: ['*']
  gateways: [edge]
  http:
  - headers: {request: {set: {x-who: '%DOWNSTREAM_PEER_URI_SAN%', x-at: '%DOWNSTREAM_LOCAL_ADDRESS% for <%REQUESTED_SERVER_NAME%>'}}}
    route: [{destination: {host: outside}}]
---
";

#[test]
fn a_gateway_fills_in_the_certificate_that_was_verified_and_nothing_without_one() {
    run_as(GATEWAY, "", async |world| {
        let outside = serve(OUTSIDE, 8080, false).await;
        let certificate = Certificate::new(&world, "cert", &["shop.example.com", "spiffe://partner/a", "urn:b,urn:c"]);
        world.configure(&format!("{}{AT_THE_GATEWAY}{}", gateway(""), certificate.secret("cert")));
        let (chain, key) = certificate.files(world.home());
        let forged = ["--header", "x-who: spiffe://partner/admin"];
        let with = [&["--cacert", certificate.roots(), "--cert", &chain, "--key", &key][..], &forged].concat();
        assert_eq!(get("https://shop.example.com:4430/", &with).await.0, "200");
        assert_eq!(seen(&outside, "x-who").as_deref(), Some("spiffe://partner/a"));
        assert_eq!(seen(&outside, "x-at"), Some(format!("{WAYPOINT}:4430 for <shop.example.com>")));
        assert_eq!(get("http://shop.example.com:8000/", &forged).await.0, "200");
        assert_eq!(seen(&outside, "x-who"), None, "what the client says of itself stays behind");
        assert_eq!(seen(&outside, "x-at"), Some(format!("{WAYPOINT}:8000 for <>")));
    });
}
