//! Gateways: what comes from outside, by curl, which knows nothing of a mesh.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mesh_frames::{END_HEADERS, Kind, Wire, frame, request};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::access_logs::{has_the_labels_of_its_metrics, line};
use crate::server::{serve, serve_carts};
use crate::world::{CARTS, CLIENT, OUTSIDE, WAYPOINT, World, authorization, run_as};

pub(crate) const GATEWAY: &str = "edge";

/// The Gateway's own pod, and a Gateway of these listeners with a route of all hosts to `outside`, and of one to `cart`.
pub(crate) fn gateway(listeners: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: edge-1, namespace: shop, uid: uid-edge, labels: {{istio: ingressgateway, gateway.networking.k8s.io/gateway-name: edge}}}}
spec: {{nodeName: node-a, serviceAccountName: edge, containers: []}}
status: {{podIP: {WAYPOINT}, phase: Running, conditions: [{{type: Ready, status: 'True'}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec: {{gatewayClassName: mesh, listeners: [{listeners}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: any, namespace: shop}}
spec:
  parentRefs: [{{name: edge}}]
  rules: [{{backendRefs: [{{name: outside, port: 80}}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: cart, namespace: shop}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [cart.example.com]
  rules: [{{matches: [{{path: {{value: /cart}}}}], backendRefs: [{{name: cart, port: 80}}]}}]
---
"
    )
}

/// What curl printed, and whether it was content.
#[derive(Debug)]
struct Fetched {
    ok: bool,
    error: String,
}

/// Runs curl from the client's address, every host being the gateway.
async fn curl(arguments: &[&str]) -> Fetched {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let run = move || {
        let connect = format!("::{WAYPOINT}:");
        let usual = ["--silent", "--show-error", "--max-time", "20", "--interface", CLIENT, "--connect-to", &connect];
        Command::new("curl").args(usual).args(arguments).output().expect("curl")
    };
    let output = tokio::task::spawn_blocking(run).await.expect("curl");
    Fetched { ok: output.status.success(), error: String::from_utf8_lossy(&output.stderr).into_owned() }
}

/// The status, and the address of the server that answered, once the gateway takes connections at all.
pub(crate) async fn get(url: &str, more: &[&str]) -> (String, String) {
    let format = "%{stderr}%{http_code} %header{x-backend}";
    let arguments = [&["--output", "/dev/null", "--write-out", format, url], more].concat();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let fetched = curl(&arguments).await;
        if fetched.error.contains("(7)") && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let (status, rest) = fetched
            .error
            .rsplit('\n')
            .find(|line| !line.is_empty())
            .and_then(|line| line.split_once(' '))
            .unwrap_or_default();
        return (status.to_owned(), rest.to_owned());
    }
}

/// A certificate for these hosts, and URIs, by an authority of its own, as files; and as a Secret's manifest.
pub(crate) struct Certificate {
    roots: PathBuf,
    chain: String,
    key: String,
}

impl Certificate {
    pub(crate) fn new(world: &World, name: &str, hosts: &[&str]) -> Self {
        let authority_key = rcgen::KeyPair::generate().expect("key");
        let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, format!("authority of {name}"));
        let root = authority.self_signed(&authority_key).expect("root");
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().expect("key");
        let (uris, hosts): (Vec<&str>, Vec<&str>) = hosts.iter().partition(|name| name.contains(':'));
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let mut subject = rcgen::CertificateParams::new(hosts).expect("parameters");
        subject
            .subject_alt_names
            .extend(uris.into_iter().map(|uri| rcgen::SanType::URI(uri.try_into().expect("ASCII"))));
        let chain = subject.signed_by(&key, &issuer).expect("certificate");
        let roots = world.home().join(format!("{name}.roots"));
        std::fs::write(&roots, root.pem()).expect("roots");
        Self { roots, chain: chain.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn secret(&self, name: &str) -> String {
        let indent = |text: &str| text.trim_end().replace('\n', "\n    ");
        let roots = std::fs::read_to_string(&self.roots).expect("roots");
        format!(
            "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}, namespace: shop}}\nstringData:\n  \
             tls.crt: |\n    {}\n  tls.key: |\n    {}\n  ca.crt: |\n    {}\n---\n",
            indent(&self.chain),
            indent(&self.key),
            indent(&roots)
        )
    }

    pub(crate) fn roots(&self) -> &str {
        self.roots.to_str().expect("a path")
    }

    /// Its chain and key as files, for a client.
    pub(crate) fn files(&self, at: &Path) -> (String, String) {
        let (chain, key) = (at.join("client.crt"), at.join("client.key"));
        std::fs::write(&chain, &self.chain).expect("chain");
        std::fs::write(&key, &self.key).expect("key");
        (chain.display().to_string(), key.display().to_string())
    }
}

#[test]
fn hosts_and_paths_lead_to_services_under_the_gateways_identity() {
    let listeners = "{name: http, port: 8000, protocol: HTTP}, {name: other, port: 8001, protocol: HTTP, hostname: '*.example.org'}";
    run_as(GATEWAY, &gateway(listeners), async |world| {
        let outside = serve(OUTSIDE, 8080, false).await;
        serve_carts().await;
        assert_eq!(get("http://any.example:8000/x", &[]).await, ("200".into(), OUTSIDE.into()));
        let at = |host: &str, port: u16, path: &str| format!("http://{host}:{port}{path}");
        let (status, backend) = get(&at("cart.example.com", 8000, "/cart/1"), &[]).await;
        assert!(status == "200" && CARTS.contains(&&*backend), "{status} {backend}");
        assert_eq!(get(&at("cart.example.com", 8000, "/else"), &[]).await.0, "404");
        assert_eq!(get(&at("a.example.org", 8001, "/"), &[]).await.0, "200");
        assert_eq!(get(&at("a.example.com", 8001, "/"), &[]).await.0, "404", "no listener is for that host");
        {
            let tunnels = world.tunnels.borrow();
            assert!(
                !tunnels.is_empty() && tunnels.iter().all(|(peer, _)| peer.as_str().ends_with("/sa/edge")),
                "{tunnels:?}"
            );
        }
        let headers = [
            "--header",
            "x-forwarded-for: 203.0.113.1",
            "--header",
            "x-forwarded-proto: https",
            "--header",
            "x-forwarded-client-cert: x",
        ];
        get(&at("any.example", 8000, "/"), &headers).await;
        let seen = outside.seen.borrow();
        let field = |name: &str| seen.last().and_then(|head| head.headers.get(name)?.to_str().ok().map(str::to_owned));
        assert_eq!(field("x-forwarded-for"), Some(format!("203.0.113.1,{CLIENT}")));
        assert_eq!((field("x-forwarded-proto").as_deref(), field("x-forwarded-client-cert")), (Some("http"), None));
        assert_eq!(field("x-envoy-external-address").as_deref(), Some(CLIENT));
    });
}

#[test]
fn a_gateways_line_has_the_labels_of_its_metrics() {
    run_as(GATEWAY, &gateway("{name: http, port: 8000, protocol: HTTP}"), async |world| {
        serve_carts().await;
        assert_eq!(get("http://cart.example.com:8000/cart", &[]).await.0, "200");
        let said = line(&world, "/cart").await;
        assert_eq!((&said["reporter"], &said["source_workload"]), (&"source".into(), &"edge-1".into()), "{said}");
        has_the_labels_of_its_metrics(&said, "200").await;
    });
}

#[test]
fn certificates_are_chosen_by_name_and_replaced_without_a_lost_connection() {
    run_as(GATEWAY, "", async |world| {
        let outside = serve(OUTSIDE, 8080, false).await;
        let [one, two, three] = [("one", "a.example.com"), ("two", "b.example.org"), ("three", "a.example.com")]
            .map(|(name, host)| Certificate::new(&world, name, &[host]));
        let listeners = "{name: one, port: 4430, protocol: HTTPS, hostname: '*.example.com', tls: {certificateRefs: [{name: one}]}}, \
            {name: two, port: 4430, protocol: HTTPS, hostname: b.example.org, tls: {certificateRefs: [{name: two}]}}";
        let with = |first: &Certificate| format!("{}{}{}", gateway(listeners), first.secret("one"), two.secret("two"));
        world.configure(&with(&one));
        for (url, roots, version) in [
            ("https://a.example.com:4430/", &one, "--http2"),
            ("https://a.example.com:4430/", &one, "--http1.1"),
            ("https://a.example.com:4430/", &one, "--tls-max=1.2"),
            ("https://b.example.org:4430/", &two, "--http2"),
        ] {
            let version: Vec<&str> = version.split('=').collect();
            let answer = get(url, &[&["--cacert", roots.roots()], &version[..]].concat()).await;
            assert_eq!(answer, ("200".into(), OUTSIDE.into()), "{url} {version:?}");
        }
        let wrong = curl(&["--cacert", one.roots(), "https://b.example.org:4430/"]).await;
        assert!(!wrong.ok && wrong.error.contains("certificate"), "{wrong:?}");
        let nobody = curl(&["--insecure", "https://c.example.net:4430/"]).await;
        assert!(!nobody.ok && nobody.error.contains("unrecognized name"), "{nobody:?}");
        // The certificate is one host's, and the request another's.
        let header = ["--cacert", one.roots(), "--header", "host: b.example.org"];
        assert_eq!(get("https://a.example.com:4430/", &header).await.0, "421");

        // A connection that was made before the certificate changed goes on.
        let url = "https://a.example.com:4430/never";
        let slow = tokio::task::spawn_local(async move {
            curl(&["--insecure", "--max-time", "15", "--output", "/dev/null", "--write-out", "%{num_connects}", url])
                .await
        });
        let waits = || outside.seen.borrow().iter().any(|head| head.uri.path() == "/never");
        while !waits() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.configure(&with(&three));
        let replaced = async {
            while !curl(&["--cacert", three.roots(), "https://a.example.com:4430/"]).await.ok {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), replaced).await.expect("the new certificate is shown");
        assert!(
            !curl(&["--cacert", one.roots(), "https://a.example.com:4430/"]).await.ok,
            "the old one is shown no more"
        );
        assert!(!slow.is_finished(), "it still waits for its answer");
        slow.abort();
    });
}

#[test]
fn a_policy_knows_which_server_a_client_asks_for_in_tls() {
    run_as(GATEWAY, "", async |world| {
        serve(OUTSIDE, 8080, false).await;
        let certificate = Certificate::new(&world, "cert", &["a.example.com", "b.example.com"]);
        let listeners = "{name: https, port: 4430, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}";
        let target = "{kind: Gateway, group: gateway.networking.k8s.io, name: edge}";
        let policy = authorization(target, "DENY", "{when: [{key: connection.sni, values: [b.example.com]}]}");
        world.configure(&format!("{}{}{policy}", gateway(listeners), certificate.secret("cert")));
        let roots = ["--cacert", certificate.roots()];
        assert_eq!(get("https://a.example.com:4430/", &roots).await.0, "200");
        assert_eq!(get("https://b.example.com:4430/", &roots).await.0, "403");
    });
}

const ISTIO: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 8000, name: http, protocol: HTTP}, hosts: ['*'], tls: {httpsRedirect: true}}
  - {port: {number: 4430, name: https, protocol: HTTPS}, hosts: [shop.example.com], tls: {mode: MUTUAL, credentialName: cert}}
  - {port: {number: 9443, name: tls, protocol: TLS}, hosts: ['*'], tls: {mode: PASSTHROUGH}}
  - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ['*']}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec:
  hosts: ['*']
  gateways: [edge]
  http: [{route: [{destination: {host: outside}}]}]
  tls: [{match: [{port: 9443, sniHosts: [inner.example.com]}], route: [{destination: {host: outside}}]}]
  tcp: [{match: [{port: 9000}], route: [{destination: {host: outside}}]}]
---
";

#[test]
fn istios_gateway_redirects_asks_clients_for_certificates_and_passes_connections() {
    run_as(GATEWAY, "", async |world| {
        serve(OUTSIDE, 8080, false).await;
        let certificate = Certificate::new(&world, "cert", &["shop.example.com"]);
        world.configure(&format!("{}{ISTIO}{}", gateway(""), certificate.secret("cert")));
        let redirected =
            get("http://shop.example.com:8000/a?b=c", &["--write-out", "%{stderr}%{http_code} %{redirect_url}"]).await;
        assert_eq!(redirected, ("301".into(), "https://shop.example.com/a?b=c".into()));
        let url = "https://shop.example.com:4430/";
        let without = curl(&["--cacert", certificate.roots(), url]).await;
        assert!(!without.ok, "a client without a certificate: {without:?}");
        let (chain, key) = certificate.files(world.home());
        let with = ["--cacert", certificate.roots(), "--cert", &chain, "--key", &key];
        assert_eq!(get(url, &with).await, ("200".into(), OUTSIDE.into()));
        // No HTTP is spoken to the gateway here: its bytes go to the server as they are.
        assert_eq!(get("http://whatever.example:9000/", &[]).await, ("200".into(), OUTSIDE.into()));
        let nobody = curl(&["--insecure", "https://other.example.com:9443/"]).await;
        assert!(!nobody.ok, "{nobody:?}");
    });
}

#[test]
fn listeners_come_and_go_and_leave_the_others_alone() {
    const ONE: &str = "{name: one, port: 8000, protocol: HTTP}";
    run_as(GATEWAY, &gateway(ONE), async |world| {
        serve(OUTSIDE, 8080, false).await;
        assert_eq!(get("http://a.example:8000/", &[]).await.0, "200");
        world.configure(&gateway(&format!("{ONE}, {{name: two, port: 8002, protocol: HTTP}}")));
        assert_eq!(get("http://a.example:8002/", &[]).await.0, "200");
        world.configure(&gateway(ONE));
        let closed = async {
            while curl(&["http://a.example:8002/"]).await.ok {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), closed).await.expect("the listener is closed");
        assert_eq!(get("http://a.example:8000/", &[]).await.0, "200");
    });
}

#[test]
fn policies_of_the_gateways_pod_judge_requests() {
    let policy = format!(
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: edge, namespace: shop}}
spec:
  selector: {{matchLabels: {{istio: ingressgateway}}}}
  action: DENY
  rules:
  - to: [{{operation: {{paths: [/admin*]}}}}]
  - from: [{{source: {{notIpBlocks: [{CLIENT}]}}}}]
---
"
    );
    let listeners = "{name: http, port: 8000, protocol: HTTP}";
    run_as(GATEWAY, &format!("{}{policy}", gateway(listeners)), async |_world| {
        serve(OUTSIDE, 8080, false).await;
        assert_eq!(get("http://a.example:8000/public", &[]).await.0, "200");
        assert_eq!(get("http://a.example:8000/admin/x", &[]).await.0, "403");
        assert_eq!(get("http://a.example:8000/%61dmin", &[]).await.0, "403");
        assert_eq!(get("http://a.example:8000/public", &["--interface", OUTSIDE]).await.0, "403");
    });
}

/// What a DestinationRule says of HTTP to `outside`.
fn spoken(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: outside, namespace: shop}}\n\
         spec: {{host: outside, trafficPolicy: {{connectionPool: {{http: {{{http}}}}}}}}}\n---\n"
    )
}

/// What is declared of the port says HTTP/1.1, and the server speaks HTTP/2 alone.
#[test]
fn a_server_is_spoken_to_as_the_client_speaks_where_a_rule_wants_that() {
    run_as(GATEWAY, "", async |world| {
        serve(OUTSIDE, 8080, true).await;
        let listeners = gateway("{name: http, port: 8000, protocol: HTTP}");
        let becomes = async |http: &str, arguments: &[&str], is_answered: bool| {
            world.configure(&format!("{listeners}{}", spoken(http)));
            while (get("http://a.example:8000/", arguments).await.0 == "200") != is_answered {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        for first in ["maxRetries: 1", "maxRetries: 2"] {
            becomes(first, &["--http2-prior-knowledge"], false).await;
            becomes("useClientProtocol: true", &["--http2-prior-knowledge"], true).await;
        }
        becomes("h2UpgradePolicy: UPGRADE", &["--http1.1"], true).await;
        becomes("h2UpgradePolicy: UPGRADE, useClientProtocol: true", &["--http1.1"], false).await;
    });
}

/// hyper takes a reset without an error for the end of a body; an endpoint must not take half an upload for a whole one.
#[test]
fn half_a_request_is_never_taken_for_a_whole_one() {
    run_as(GATEWAY, &gateway("{name: http, port: 8000, protocol: HTTP}"), async |_world| {
        // Of HTTP/1.1, to whom no reset of a stream goes on: it sees chunks, and their end or none.
        let listener = TcpListener::bind((OUTSIDE, 8080)).await.expect("listen");
        let (began, half) = tokio::sync::oneshot::channel();
        let (tell, told) = tokio::sync::oneshot::channel();
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut read = Vec::new();
            while !read.ends_with(b"half\r\n") && stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {}
            let _ = began.send(());
            let _ = stream.read_to_end(&mut read).await;
            let _ = tell.send(read);
        });
        let stream = loop {
            match TcpStream::connect((WAYPOINT, 8000)).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let (mut wire, listening) = Wire::open(stream).await.expect("preface");
        spawn_local(listening);
        wire.send(
            &[frame(Kind::Headers, END_HEADERS, 1, &request("POST", &[])), frame(Kind::Data, 0, 1, b"half")].concat(),
        )
        .await
        .expect("write");
        // What was sent has gone on.
        half.await.expect("half of it");
        wire.send(&frame(Kind::Reset, 0, 1, &[0, 0, 0, 0])).await.expect("write");
        let read = String::from_utf8(told.await.expect("the connection's end")).expect("text");
        assert!(read.contains("transfer-encoding: chunked") && read.ends_with("4\r\nhalf\r\n"), "{read}");
    });
}
