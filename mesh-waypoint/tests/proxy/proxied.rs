//! Gateways with proxies before them: the PROXY protocol, and `x-forwarded-for` by so many of them as are believed.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::access_logs::line;
use crate::bad_requests::status;
use crate::gateway::{Certificate, GATEWAY, gateway, get};
use crate::metrics::{bad_input, scrape};
use crate::server::{Backend, serve, serve_carts};
use crate::world::{CLIENT, OUTSIDE, WAYPOINT, World, run_as};

const HTTP: &str = "{name: http, port: 8000, protocol: HTTP}";
/// Whom the load balancer speaks for.
const FAR: &str = "203.0.113.7";
/// A header of version 1 that says so.
const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 40123 80\r\n";
/// One of version 2, with a field after it.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xcb\0\x71\x07\xc6\x33\x64\x01\x9c\xbb\0\x50\x04\0\x01x";
/// The balancer's own, by version 2.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A gateway before which that stands, as the Gateway's annotation says.
fn behind(topology: &str, listeners: &str) -> String {
    let plain = "metadata: {name: edge, namespace: shop}\nspec: {gatewayClassName";
    let config = format!("'{{gatewayTopology: {topology}}}'");
    let annotated = plain.replace("shop}", &format!("shop, annotations: {{proxy.istio.io/config: {config}}}}}"));
    gateway(listeners).replace(plain, &annotated)
}

/// A connection of the client's to the gateway, once it takes any.
async fn connect(port: u16) -> TcpStream {
    loop {
        let socket = TcpSocket::new_v4().expect("socket");
        socket.bind(SocketAddr::new(CLIENT.parse().expect("address"), 0)).expect("bind");
        match socket.connect(SocketAddr::new(WAYPOINT.parse().expect("address"), port)).await {
            Ok(stream) => return stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// A request for a path that ends its connection.
fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").into_bytes()
}

/// All that is answered to what is sent in these pieces, up to the end of the connection.
async fn answer(pieces: impl IntoIterator<Item = &[u8]>) -> String {
    let mut stream = connect(8000).await;
    stream.set_nodelay(true).expect("socket");
    for piece in pieces {
        // It may be refused before all is written.
        let _ = stream.write_all(piece).await;
    }
    let mut read = Vec::new();
    // It may be a reset.
    let _ = stream.read_to_end(&mut read).await;
    String::from_utf8_lossy(&read).into_owned()
}

fn field(backend: &Backend, name: &str) -> Option<String> {
    let seen = backend.seen.borrow();
    seen.last().and_then(|head| head.headers.get(name)?.to_str().ok().map(str::to_owned))
}

fn policy(rules: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: edge, namespace: shop}}
spec:
  selector: {{matchLabels: {{istio: ingressgateway}}}}
  action: DENY
  rules: {rules}
---
"
    )
}

#[test]
fn the_client_is_who_the_proxy_protocol_names() {
    let rules = format!(
        "[{{from: [{{source: {{remoteIpBlocks: [{FAR}]}}}}], to: [{{operation: {{paths: [/remote]}}}}]}}, \
          {{from: [{{source: {{ipBlocks: [{FAR}]}}}}], to: [{{operation: {{paths: [/direct]}}}}]}}, \
          {{from: [{{source: {{ipBlocks: [{CLIENT}]}}}}], to: [{{operation: {{paths: [/balancer]}}}}]}}]"
    );
    let manifests = format!("{}{}", behind("{proxyProtocol: {}}", HTTP), policy(&rules));
    run_as(GATEWAY, &manifests, async |world| {
        let outside = serve(OUTSIDE, 8080, false).await;
        for (index, (header, client)) in [(V1, FAR), (V2, FAR), (LOCAL, CLIENT)].into_iter().enumerate() {
            let path = format!("/{index}");
            let whole = [header, &request(&path)].concat();
            assert_eq!(status(&answer([&whole[..]]).await), "200", "{header:?}");
            assert_eq!(field(&outside, "x-forwarded-for").as_deref(), Some(client));
            assert_eq!(field(&outside, "x-envoy-external-address").as_deref(), Some(client));
            let logged = line(&world, &path).await;
            let logged = logged["downstream_remote_address"].as_str().expect("an address").to_owned();
            assert_eq!(logged.rsplit_once(':').map(|(host, _)| host), Some(client), "{logged}");
        }
        // It may come in any pieces.
        let whole = [V2, &request("/pieces")].concat();
        assert_eq!(status(&answer(whole.chunks(1)).await), "200");
        for (path, expected) in [("/remote", "403"), ("/direct", "200"), ("/balancer", "403")] {
            let whole = [V1, &request(path)].concat();
            assert_eq!(status(&answer([&whole[..]]).await), expected, "{path}");
        }
        // curl speaks version 1 for itself.
        let url = "http://a.example:8000/";
        assert_eq!(get(url, &["--haproxy-protocol"]).await, ("200".into(), OUTSIDE.into()));
        assert_eq!(field(&outside, "x-forwarded-for").as_deref(), Some(CLIENT));
    });
}

#[test]
fn where_the_proxy_protocol_is_asked_for_nothing_else_is_taken() {
    run_as(GATEWAY, &behind("{proxyProtocol: {}}", HTTP), async |_world| {
        let outside = serve(OUTSIDE, 8080, false).await;
        let mut wrong = V2.to_vec();
        wrong[15] = 11;
        let bad: [&[u8]; 5] = [
            b"",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 40123\r\n",
            b"PROXY TCP4 203.0.113.7 198.51.100.1 40123 80\n",
            b"PROXY UDP4 203.0.113.7 198.51.100.1 40123 80\r\n",
            &wrong,
        ];
        for header in bad {
            let whole = [header, &request("/")].concat();
            assert_eq!(answer([&whole[..]]).await, "", "{header:?}");
        }
        // Whoever asks whether somebody is there says nothing, and does nothing wrong.
        drop(connect(8000).await);
        assert_eq!(status(&answer([V1, &request("/")]).await), "200");
        assert_eq!(outside.seen.borrow().len(), 1);
        assert_eq!(bad_input(&scrape("/metrics").await.1, "client", "proxy_protocol"), 5.0);
    });
}

#[test]
fn a_header_that_nobody_asked_for_is_refused() {
    run_as(GATEWAY, "", async |world| {
        let outside = serve(OUTSIDE, 8080, false).await;
        let certificate = Certificate::new(&world, "cert", &["a.example"]);
        let listeners =
            format!("{HTTP}, {{name: https, port: 4430, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert}}]}}}}");
        world.configure(&format!("{}{}", gateway(&listeners), certificate.secret("cert")));
        for header in [V1, V2] {
            let whole = [header, &request("/")].concat();
            assert_eq!(status(&answer([&whole[..]]).await), "400", "{header:?}");
        }
        let url = "https://a.example:4430/";
        let trusted = ["--cacert", certificate.roots()];
        assert_eq!(get(url, &trusted).await.0, "200");
        assert_eq!(get(url, &[&trusted[..], &["--haproxy-protocol"]].concat()).await.0, "000");
        assert_eq!(outside.seen.borrow().len(), 1);
        assert_eq!(bad_input(&scrape("/metrics").await.1, "client", "proxy_protocol"), 3.0);
        // The same connection is as it should be from when it is asked for, in TLS as well.
        let asked = behind("{proxyProtocol: {}}", &listeners);
        world.configure(&format!("{asked}{}", certificate.secret("cert")));
        while get(url, &[&trusted[..], &["--haproxy-protocol"]].concat()).await.0 != "200" {}
        assert_eq!(field(&outside, "x-forwarded-for").as_deref(), Some(CLIENT));
        assert_eq!(field(&outside, "x-forwarded-proto").as_deref(), Some("https"));
    });
}

/// Who has not been asked for by any Gateway: by the mesh configuration, and by the pod's own annotation.
#[test]
fn the_mesh_and_the_pod_say_what_stands_before_a_gateway() {
    const MESH: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
                        data: {mesh: 'defaultConfig: {gatewayTopology: {numTrustedProxies: 1}}'}\n---\n";
    run_as(GATEWAY, &format!("{}{MESH}", gateway(HTTP)), async |world| {
        let outside = serve(OUTSIDE, 8080, false).await;
        let forwarded = ["--header", "x-forwarded-for: 192.0.2.9, 203.0.113.7"];
        assert_eq!(get("http://a.example:8000/", &forwarded).await.0, "200");
        assert_eq!(field(&outside, "x-envoy-external-address").as_deref(), Some(FAR));
        let labels = "labels: {istio: ingressgateway";
        let annotated = format!(
            "annotations: {{proxy.istio.io/config: '{{gatewayTopology: {{numTrustedProxies: 2}}}}'}}, {labels}"
        );
        world.configure(&format!("{}{MESH}", gateway(HTTP)).replace(labels, &annotated));
        let believed = async || {
            get("http://a.example:8000/", &forwarded).await;
            field(&outside, "x-envoy-external-address")
        };
        while believed().await.as_deref() != Some("192.0.2.9") {}
    });
}

#[test]
fn forwarded_addresses_count_by_as_many_proxies_as_are_trusted() {
    let rules = "[{from: [{source: {remoteIpBlocks: [192.0.2.9]}}], to: [{operation: {paths: [/remote]}}]}, \
                  {from: [{source: {ipBlocks: [192.0.2.9]}}], to: [{operation: {paths: [/direct]}}]}]";
    run_as(GATEWAY, &format!("{}{}", behind("{numTrustedProxies: 2}", HTTP), policy(rules)), async |world| {
        let outside = serve(OUTSIDE, 8080, false).await;
        let url = |path: &str| format!("http://a.example:8000{path}");
        let through = "x-forwarded-for: 10.6.6.6, 192.0.2.9, 198.51.100.1";
        let headers = ["--header", through, "--header", "x-forwarded-proto: https"];
        assert_eq!(get(&url("/seen"), &headers).await.0, "200");
        let chain = format!("10.6.6.6, 192.0.2.9, 198.51.100.1,{CLIENT}");
        assert_eq!(field(&outside, "x-forwarded-for"), Some(chain), "all of it goes on");
        assert_eq!(field(&outside, "x-envoy-external-address").as_deref(), Some("192.0.2.9"));
        assert_eq!(field(&outside, "x-forwarded-proto").as_deref(), Some("https"), "the proxy ended TLS");
        let logged = line(&world, "/seen").await;
        assert_eq!(logged["downstream_remote_address"], "192.0.2.9:0", "{logged}");
        for (path, expected) in [("/remote", "403"), ("/direct", "200")] {
            assert_eq!(get(&url(path), &headers).await.0, expected, "{path}");
        }
        // Fewer addresses than proxies: somebody came past them, and is believed nothing.
        for few in ["x-forwarded-for: 192.0.2.9", "x-forwarded-for: 192.0.2.9, nonsense, 198.51.100.1", "x: y"] {
            assert_eq!(get(&url("/remote"), &["--header", few]).await.0, "200", "{few}");
            assert_eq!(field(&outside, "x-envoy-external-address").as_deref(), Some(CLIENT), "{few}");
        }
    });
}

#[test]
fn without_trusted_proxies_what_is_forged_moves_nothing() {
    let rules = format!("[{{from: [{{source: {{notRemoteIpBlocks: [{CLIENT}]}}}}]}}]");
    let hash = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}}
---
";
    let plain = format!("{}{}{hash}", gateway(HTTP), policy(&rules));
    let trusting = format!("{}{}", behind("{numTrustedProxies: 1}", HTTP), hash);
    run_as(GATEWAY, &plain, async move |world| {
        serve_carts().await;
        let ask = async |client: u8| {
            let forged = format!("x-forwarded-for: 192.0.2.{client}");
            get("http://cart.example.com:8000/cart", &["--header", &forged]).await
        };
        let (status, first) = ask(1).await;
        assert_eq!(status, "200");
        for client in 2..24 {
            assert_eq!(ask(client).await, ("200".into(), first.clone()), "one client, one endpoint");
        }
        world.configure(&trusting);
        // From when a proxy is believed, its clients are many.
        let mut others = 0;
        while others == 0 {
            for client in 1..24 {
                others += usize::from(ask(client).await.1 != first);
            }
        }
    });
}

/// httpsRedirect goes by what the client speaks to the proxy that ends its TLS.
#[test]
fn a_redirect_to_https_does_not_turn_in_circles_behind_a_proxy() {
    const ISTIO: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8000, name: http, protocol: HTTP}, hosts: ['*'], tls: {httpsRedirect: true}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec: {hosts: ['*'], gateways: [edge], http: [{route: [{destination: {host: outside}}]}]}
---
";
    run_as(GATEWAY, &format!("{}{ISTIO}", behind("{numTrustedProxies: 1}", "")), async |_world: World| {
        serve(OUTSIDE, 8080, false).await;
        let url = "http://a.example:8000/";
        let by = |scheme: &'static str| async move { get(url, &["--header", scheme]).await.0 };
        assert_eq!(by("x-forwarded-proto: https").await, "200");
        assert_eq!(by("x-forwarded-proto: http").await, "301");
        assert_eq!(by("x-other: y").await, "301");
    });
}

const MUTUAL: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 8000, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 4430, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: OPTIONAL_MUTUAL, credentialName: cert}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec: {hosts: ['*'], gateways: [edge], http: [{route: [{destination: {host: outside}}]}]}
---
";

/// What becomes of `x-forwarded-client-cert`, by what the gateway is told of who stands before it.
#[test]
fn servers_are_told_of_certificates_as_the_gateway_is_told_to() {
    run_as(GATEWAY, "", async |world| {
        let outside = serve(OUTSIDE, 8080, false).await;
        let certificate = Certificate::new(&world, "cert", &["a.example"]);
        let (chain, key) = certificate.files(world.home());
        let forged = ["--header", "x-forwarded-client-cert: Hash=forged"];
        let https = [&["--cacert", certificate.roots()][..], &forged].concat();
        let shown = [&https[..], &["--cert", &chain, "--key", &key]].concat();
        let told = async |url: &str, arguments: &[&str]| {
            assert_eq!(get(url, arguments).await.0, "200");
            let told = field(&outside, "x-forwarded-client-cert")?;
            // Of the certificate itself the beginning.
            Some(told.split(';').map(|part| part.chars().take(14).collect::<String>()).collect::<Vec<_>>().join(" "))
        };
        for (mode, with_one, without) in [
            ("", "set", None),
            ("SANITIZE", "none", None),
            ("SANITIZE_SET", "set", None),
            ("APPEND_FORWARD", "appended", None),
            ("FORWARD_ONLY", "forged", None),
            ("ALWAYS_FORWARD_ONLY", "forged", Some("Hash=forged")),
        ] {
            let topology =
                if mode.is_empty() { "{}".to_owned() } else { format!("{{forwardClientCertDetails: {mode}}}") };
            world.configure(&format!("{}{MUTUAL}{}", behind(&topology, ""), certificate.secret("cert")));
            let settled = async {
                loop {
                    let kind = match told("https://a.example:4430/", &shown).await.as_deref() {
                        None => "none",
                        Some("Hash=forged") => "forged",
                        Some(told) if told.starts_with("Hash=forged,Ha") => "appended",
                        Some(told) if told.contains("Cert=") && told.contains("DNS=a.example") => "set",
                        Some(_) => "?",
                    };
                    let others =
                        [told("https://a.example:4430/", &https).await, told("http://a.example:8000/", &forged).await];
                    if kind == with_one && others.iter().all(|other| other.as_deref() == without) {
                        return;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap_or_else(|_| panic!("{mode}"));
        }
    });
}
