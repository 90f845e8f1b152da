//! WebSocket through waypoints and gateways, whichever version of HTTP each side speaks, between real clients and servers of it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, handshake::derive_accept_key, protocol::Role};

use crate::access_logs::line;
use crate::gateway::{Certificate, GATEWAY, gateway};
use crate::server::Local;
use crate::world::{OUTSIDE, OUTSIDE_SERVICE, WAYPOINT, World, authorization, run_as, run_with};

/// Octets of a long message: more than any window or buffer on its way.
const LONG: usize = 1 << 20;

/// A page that says by its next request what came back of what it said.
const PAGE: &str = "<script>
fetch('/script').then(() => {
  const ws = new WebSocket('wss://' + location.host + '/chat', ['soup', 'wamp']);
  ws.onopen = () => ws.send('hello');
  ws.onmessage = (event) => { ws.close(1000, 'enough'); fetch('/said/' + event.data); };
  ws.onclose = (event) => fetch('/closed/' + event.code + '/' + event.wasClean);
  ws.onerror = () => fetch('/failed');
});
</script>";

/// A server of HTTP/1.1 and HTTP/2 that echoes messages.
struct Chat {
    /// How it was asked, and for what: `:protocol` or `upgrade`, and the fields of the head.
    asked: RefCell<Vec<(Option<String>, http::request::Parts)>>,
    paths: RefCell<Vec<String>>,
    came: Notify,
}

impl Chat {
    /// `takes_protocols`: streams of HTTP/2 may be WebSocket's.
    async fn serve(address: &'static str, takes_protocols: bool) -> Rc<Self> {
        let listener = TcpListener::bind((address, 8080)).await.expect("listen");
        let chat = Rc::new(Self { asked: RefCell::default(), paths: RefCell::default(), came: Notify::new() });
        let serving = chat.clone();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let chat = serving.clone();
                spawn_local(async move {
                    let mut first = [0; 3];
                    while stream.peek(&mut first).await.is_ok_and(|count| (1..3).contains(&count)) {}
                    let service = service_fn(move |request| {
                        let chat = chat.clone();
                        async move { Ok::<_, Infallible>(chat.answer(request)) }
                    });
                    let io = TokioIo::new(stream);
                    if &first == b"PRI" {
                        let mut builder = hyper::server::conn::http2::Builder::new(Local);
                        if takes_protocols {
                            builder.enable_connect_protocol();
                        }
                        let _ = builder.serve_connection(io, service).await;
                    } else {
                        let builder = hyper::server::conn::http1::Builder::new();
                        let _ = builder.serve_connection(io, service).with_upgrades().await;
                    }
                });
            }
        });
        chat
    }

    fn answer(&self, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.paths.borrow_mut().push(request.uri().path().to_owned());
        self.came.notify_waiters();
        let protocol = request.extensions().get::<Protocol>().map(|protocol| protocol.as_str().to_owned());
        if protocol.is_none() && !request.headers().contains_key("upgrade") {
            return Response::builder().header("content-type", "text/html").body(Full::from(PAGE)).expect("valid");
        }
        if request.uri().path() == "/closed-for-today" {
            return Response::builder().status(403).body(Full::from("no")).expect("valid");
        }
        let upgraded = hyper::upgrade::on(&mut request);
        let (head, _) = request.into_parts();
        let mut response = Response::builder();
        if let Some(protocols) = head.headers.get("sec-websocket-protocol") {
            let first = protocols.to_str().expect("text").split(',').next().expect("one").to_owned();
            response = response.header("sec-websocket-protocol", first);
        }
        if protocol.is_none() {
            let key = head.headers["sec-websocket-key"].as_bytes();
            response = response.status(StatusCode::SWITCHING_PROTOCOLS).header("connection", "upgrade");
            response = response.header("upgrade", "websocket").header("sec-websocket-accept", derive_accept_key(key));
        }
        self.asked.borrow_mut().push((protocol, head));
        spawn_local(async move {
            let upgraded = TokioIo::new(upgraded.await.expect("upgraded"));
            let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
            while let Some(Ok(message)) = socket.next().await {
                if message.is_close() {
                    // What answers it has been queued.
                    let _ = socket.flush().await;
                } else if !message.is_ping() {
                    socket.send(message).await.expect("send");
                }
            }
        });
        response.body(Full::default()).expect("valid")
    }

    /// Waits for a request to that path.
    async fn asked_for(&self, path: &str) {
        loop {
            let came = self.came.notified();
            if self.paths.borrow().iter().any(|known| known == path) {
                return;
            }
            came.await;
        }
    }

    /// How the last was asked for, and with which version of HTTP.
    fn last(&self) -> (Option<String>, http::Version) {
        let asked = self.asked.borrow();
        let (protocol, head) = asked.last().expect("somebody asked");
        (protocol.clone(), head.version)
    }
}

/// Asks for WebSocket by that version of HTTP.
///
/// # Errors
/// The status of an answer that is none.
async fn websocket<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    by_http2: bool,
    path: &str,
) -> Result<Box<dyn Conversation>, u16> {
    if !by_http2 {
        let asked = tokio_tungstenite::client_async(format!("ws://outside.shop{path}"), stream).await;
        return match asked {
            Ok((socket, _)) => Ok(Box::new(socket)),
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        };
    }
    let (mut sender, connection) = http2::handshake(Local, TokioIo::new(stream)).await.expect("handshake");
    spawn_local(connection);
    let request = Request::connect(format!("http://outside.shop{path}"))
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static("websocket"))
        .body(Full::<Bytes>::default())
        .expect("valid");
    let answer = sender.send_request(request).await.expect("an answer");
    let headers = answer.headers();
    assert!(
        !["upgrade", "connection", "sec-websocket-accept"].iter().any(|name| headers.contains_key(*name)),
        "{headers:?}"
    );
    if answer.status() != StatusCode::OK {
        return Err(answer.status().as_u16());
    }
    let upgraded = TokioIo::new(hyper::upgrade::on(answer).await.expect("upgraded"));
    Ok(Box::new(WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await))
}

/// A client's side, whatever is below it.
trait Conversation {
    /// Sends a message and waits for its echo.
    fn says<'a>(&'a mut self, message: &'a Message) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;
    /// Says that it is over, and waits for the other side to do so.
    fn ends(&mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>>;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation for WebSocketStream<S> {
    fn says<'a>(&'a mut self, message: &'a Message) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(async move {
            self.send(message.clone()).await.expect("send");
            assert_eq!(&self.next().await.expect("an echo").expect("a message"), message);
        })
    }

    fn ends(&mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async move {
            self.close(None).await.expect("close");
            while let Some(message) = self.next().await {
                assert!(message.expect("an orderly end").is_close());
            }
        })
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, by_http2: bool, path: &str) {
    let mut socket = websocket(stream, by_http2, path).await.expect("agreed");
    socket.says(&Message::text("hello")).await;
    socket.says(&Message::binary(vec![b'x'; LONG])).await;
    socket.ends().await;
}

/// What the line of a conversation says.
async fn told(world: &World, path: &str, by_http2: bool) {
    let line = line(world, path).await;
    let (protocol, status) = if by_http2 { ("HTTP/2", 200) } else { ("HTTP/1.1", 101) };
    for (field, expected) in [("method", "GET"), ("protocol", protocol), ("response_flags", "-")] {
        assert_eq!(line[field], expected, "{line}");
    }
    assert_eq!(line["response_code"], status, "{line}");
    for field in ["bytes_received", "bytes_sent"] {
        assert!(line[field].as_u64().is_some_and(|octets| octets > LONG as u64), "{field}: {line}");
    }
}

async fn to_gateway(port: u16) -> TcpStream {
    loop {
        match TcpStream::connect((WAYPOINT, port)).await {
            Ok(stream) => return stream,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}

async fn tls(certificate: &Certificate, by_http2: bool) -> impl AsyncRead + AsyncWrite + Unpin + 'static {
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_file(certificate.roots()).expect("a root");
    roots.add(root).expect("a root");
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![if by_http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("outside.shop").expect("a name");
    connector.connect(name, to_gateway(4430).await).await.expect("TLS")
}

/// The Service `outside` with a port at which HTTP/2 is declared, and a route to it at port 8001.
const DECLARED_HTTP2: &str = "apiVersion: v1
kind: Service
metadata: {name: h2c, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{name: web, port: 80, appProtocol: kubernetes.io/h2c}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: h2c, namespace: shop, labels: {kubernetes.io/service-name: h2c}}
addressType: IPv4
ports: [{name: web, port: 8080}]
endpoints: [{addresses: [10.1.0.21]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: declared, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules: [{matches: [{path: {value: /declared}, method: GET}], backendRefs: [{name: h2c, port: 80}]}]
---
";

const LISTENERS: &str = "{name: http, port: 8000, protocol: HTTP}, \
    {name: https, port: 4430, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}";

#[test]
fn messages_pass_a_gateway_from_either_version_to_either_version() {
    run_as(GATEWAY, "", async |world| {
        let chat = Chat::serve(OUTSIDE, true).await;
        let certificate = Certificate::new(&world, "cert", &["outside.shop"]);
        world.configure(&format!("{}{DECLARED_HTTP2}{}", gateway(LISTENERS), certificate.secret("cert")));
        let websocket = Some("websocket".to_owned());
        for by_http2 in [false, true] {
            for (prefix, expected) in
                [("/http1", (None, http::Version::HTTP_11)), ("/declared", (websocket.clone(), http::Version::HTTP_2))]
            {
                let path = format!("{prefix}/plain/{by_http2}");
                converse(to_gateway(8000).await, by_http2, &path).await;
                assert_eq!(chat.last(), expected, "{path}");
                told(&world, &path, by_http2).await;
                let path = format!("{prefix}/tls/{by_http2}");
                converse(tls(&certificate, by_http2).await, by_http2, &path).await;
                assert_eq!(chat.last(), expected, "{path}");
                told(&world, &path, by_http2).await;
            }
        }
        let asked = chat.asked.borrow();
        let fields = |head: &http::request::Parts, name: &str| {
            head.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        for (protocol, head) in &*asked {
            assert_eq!(head.method, if protocol.is_some() { Method::CONNECT } else { Method::GET });
            assert_eq!(fields(head, "sec-websocket-version").as_deref(), Some("13"), "{head:?}");
            assert_eq!(fields(head, "sec-websocket-key").is_some(), protocol.is_none(), "{head:?}");
            assert!(fields(head, "x-forwarded-for").is_some(), "{head:?}");
        }
    });
}

#[test]
fn a_server_whose_streams_are_http_alone_is_asked_by_http1() {
    run_as(GATEWAY, &format!("{}{DECLARED_HTTP2}", gateway(LISTENERS)), async |world| {
        let chat = Chat::serve(OUTSIDE, false).await;
        for by_http2 in [false, true] {
            let path = format!("/declared/{by_http2}");
            converse(to_gateway(8000).await, by_http2, &path).await;
            assert_eq!(chat.last(), (None, http::Version::HTTP_11));
            told(&world, &path, by_http2).await;
        }
    });
}

#[test]
fn messages_pass_a_waypoint_and_policies_see_one_request_whoever_asks() {
    let rule = "{to: [{operation: {methods: [GET], paths: [/secret*]}}]}";
    run_with(&authorization(OUTSIDE_SERVICE, "DENY", rule), async |world| {
        let chat = Chat::serve(OUTSIDE, true).await;
        let tunnel = async || world.tunnel("10.96.0.2:80").await.expect("tunnel");
        for by_http2 in [false, true] {
            let path = format!("/waypoint/{by_http2}");
            converse(tunnel().await, by_http2, &path).await;
            let version = if by_http2 { http::Version::HTTP_2 } else { http::Version::HTTP_11 };
            assert_eq!(chat.last().1, version, "in the mesh a client speaks what the server does");
            told(&world, &path, by_http2).await;
            for (path, expected) in [("/secret", 403), ("/x/../secret/a", 403), ("/closed-for-today", 403)] {
                let status = websocket(tunnel().await, by_http2, path).await.err();
                assert_eq!(status, Some(expected), "{path}, HTTP/2: {by_http2}");
            }
        }
        let paths = chat.paths.borrow();
        assert!(!paths.iter().any(|path| path.contains("secret")), "{paths:?}");
    });
}

#[test]
fn what_carries_requests_is_not_let_through_as_another_protocol() {
    run_with("", async |world| {
        let chat = Chat::serve(OUTSIDE, true).await;
        let tunnel = world.tunnel("10.96.0.2:80").await.expect("tunnel");
        let (mut sender, connection) = http2::handshake(Local, TokioIo::new(tunnel)).await.expect("handshake");
        spawn_local(connection);
        for (protocol, expected) in [("h2c", 501), ("HTTP/2.0", 501), ("tls", 501), ("chat", 200)] {
            let request = Request::connect("http://outside.shop/")
                .extension(Protocol::from(protocol))
                .body(Full::<Bytes>::default())
                .expect("valid");
            let answer = sender.send_request(request).await.expect("an answer");
            assert_eq!(answer.status().as_u16(), expected, "{protocol}");
        }
        assert_eq!(chat.asked.borrow().len(), 1);
    });
}

#[test]
fn conversations_go_on_while_a_gateway_drains() {
    run_as(GATEWAY, &gateway(LISTENERS), async |mut world| {
        Chat::serve(OUTSIDE, true).await;
        let mut sockets = Vec::new();
        for by_http2 in [false, true] {
            let stream = to_gateway(8000).await;
            sockets.push(websocket(stream, by_http2, &format!("/{by_http2}")).await.expect("agreed"));
        }
        world.terminate();
        world.logged("waypoint draining").await;
        for socket in &mut sockets {
            socket.says(&Message::text("still there")).await;
        }
        assert_eq!(world.ended(), None);
        for socket in &mut sockets {
            socket.ends().await;
        }
        drop(sockets);
        while world.ended().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(world.ended(), Some(true));
    });
}

/// Chromium asks by HTTP/2, where the server's settings let it and it has a connection already.
#[test]
fn a_browser_converses_by_http2_with_a_server_of_http1() {
    run_as(GATEWAY, "", async |world| {
        let chat = Chat::serve(OUTSIDE, false).await;
        let certificate = Certificate::new(&world, "cert", &["outside.shop"]);
        world.configure(&format!("{}{}", gateway(LISTENERS), certificate.secret("cert")));
        drop(to_gateway(4430).await);
        let _browser = Browser::open(&world, "https://outside.shop:4430/");
        for path in ["/chat", "/said/hello", "/closed/1000/true"] {
            chat.asked_for(path).await;
        }
        assert!(!chat.paths.borrow().iter().any(|path| path == "/failed"));
        let line = line(&world, "/chat").await;
        assert_eq!((&line["protocol"], &line["method"]), (&"HTTP/2".into(), &"GET".into()), "{line}");
        assert_eq!(line["response_code"], 200, "{line}");
        let asked = chat.asked.borrow();
        let fields: HashMap<_, _> = asked[0].1.headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
        assert_eq!(fields["sec-websocket-protocol"], "soup, wamp");
    });
}

/// Headless Chromium, until it is dropped.
struct Browser(Child);

impl Browser {
    fn open(world: &World, url: &str) -> Self {
        let profile = format!("--user-data-dir={}", world.home().join("browser").display());
        let hosts = format!("--host-resolver-rules=MAP * {WAYPOINT}");
        let usual = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
        let child = Command::new("chromium")
            .args(usual)
            .args(["--ignore-certificate-errors", "--remote-debugging-port=0", &profile, &hosts, url])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium");
        Self(child)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
