//! Servers behind the waypoint, and clients before it.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_transport::hbone::TunnelStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::world::CARTS;

/// What a server is asked to do by `x-do`.
pub(crate) struct Backend {
    /// Heads as they came.
    pub(crate) seen: RefCell<Vec<http::request::Parts>>,
    /// TCP connections accepted.
    pub(crate) connections: Cell<usize>,
    name: &'static str,
    /// The status of what is answered; 200 at first.
    pub(crate) status: Cell<u16>,
    /// Ends a body that is under way before its end.
    pub(crate) break_off: Notify,
}

type Body = BoxBody<Bytes, std::io::Error>;

/// A server of HTTP/1.1 or HTTP/2 at an address.
pub(crate) async fn serve(address: &'static str, port: u16, http2: bool) -> Rc<Backend> {
    serve_by(address, port, async move |stream| Some((stream, http2))).await
}

/// The same by TLS: of the version of HTTP that is agreed on, and HTTP/1.1 where none is.
pub(crate) async fn serve_tls(address: &'static str, port: u16, config: Arc<rustls::ServerConfig>) -> Rc<Backend> {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    serve_by(address, port, async move |stream| {
        let stream = acceptor.accept(stream).await.ok()?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Some((stream, http2))
    })
    .await
}

/// Servers of HTTP/1.1 at the endpoints of `cart`, in their order.
pub(crate) async fn serve_carts() -> Vec<Rc<Backend>> {
    let mut carts = Vec::new();
    for cart in CARTS {
        carts.push(serve(cart, 8080, false).await);
    }
    carts
}

async fn serve_by<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    address: &'static str,
    port: u16,
    accept: impl AsyncFn(TcpStream) -> Option<(S, bool)> + 'static,
) -> Rc<Backend> {
    let listener = TcpListener::bind((address, port)).await.expect("listen");
    let backend = Rc::new(Backend {
        seen: RefCell::default(),
        connections: Cell::new(0),
        name: address,
        status: Cell::new(200),
        break_off: Notify::new(),
    });
    let (serving, accept) = (backend.clone(), Rc::new(accept));
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serving.connections.set(serving.connections.get() + 1);
            let (backend, accept) = (serving.clone(), accept.clone());
            spawn_local(async move {
                let Some((stream, http2)) = accept(stream).await else { return };
                let service = service_fn(move |request| answer(backend.clone(), request));
                let io = TokioIo::new(stream);
                if http2 {
                    let _ = hyper::server::conn::http2::Builder::new(Local).serve_connection(io, service).await;
                } else {
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(io, service).with_upgrades().await;
                }
            });
        }
    });
    backend
}

async fn answer(backend: Rc<Backend>, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let is_connect = request.method() == http::Method::CONNECT;
    let asks = is_connect || request.headers().contains_key("upgrade");
    let upgrade = asks.then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    backend.seen.borrow_mut().push(parts);
    if let Some(upgrade) = upgrade {
        spawn_local(async move {
            let upgraded = upgrade.await.expect("upgraded");
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
        });
        if is_connect {
            return Ok(Response::new(full("")));
        }
        let switching = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let switching = switching.header("connection", "upgrade").header("upgrade", "echo");
        return Ok(switching.body(full("")).expect("valid"));
    }
    let (name, response) = (backend.name, Response::builder().status(backend.status.get()));
    let body = match path.as_str() {
        "/echo" => body.map_err(std::io::Error::other).boxed(),
        // Answers once it has all.
        "/read" => match body.collect().await {
            Ok(whole) => Full::new(whole.to_bytes()).map_err(never).boxed(),
            Err(_) => full("broken off"),
        },
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("valid"));
            Full::new(Bytes::from("message")).map_err(never).with_trailers(async { Some(Ok(trailers)) }).boxed()
        }
        "/break" => {
            let (sender, frames) = tokio::sync::mpsc::channel(2);
            let _ = sender.try_send(Ok(Frame::data(Bytes::from("half"))));
            spawn_local(async move {
                backend.break_off.notified().await;
                let _ = sender.send(Err(std::io::Error::other("broken off"))).await;
            });
            Frames(frames).boxed()
        }
        "/endless" => {
            let (sender, frames) = tokio::sync::mpsc::channel(2);
            spawn_local(async move {
                while sender.send(Ok(Frame::data(Bytes::from_static(&[b'e'; 16 << 10])))).await.is_ok() {}
            });
            Frames(frames).boxed()
        }
        "/never" => std::future::pending().await,
        _ => full(name),
    };
    Ok(response.header("x-backend", name).header("keep-alive", "timeout=5").body(body).expect("valid"))
}

fn full(text: &'static str) -> Body {
    Full::new(Bytes::from(text)).map_err(never).boxed()
}

fn never(never: Infallible) -> std::io::Error {
    match never {}
}

/// A body of parts, which says no length.
pub(crate) struct Frames(tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>);

impl Frames {
    pub(crate) fn of(parts: &[&'static [u8]]) -> Self {
        let (sender, frames) = tokio::sync::mpsc::channel(parts.len());
        for part in parts {
            sender.try_send(Ok(Frame::data(Bytes::from_static(part)))).expect("room");
        }
        Self(frames)
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(cx)
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}

/// A client's connection.
pub(crate) enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A response, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Client {
    pub(crate) async fn http1(tunnel: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(tunnel)).await.expect("handshake");
        spawn_local(connection);
        Self::Http1(sender)
    }

    pub(crate) async fn http2(tunnel: TunnelStream) -> Self {
        let (sender, connection) = http2::handshake(Local, TokioIo::new(tunnel)).await.expect("handshake");
        spawn_local(connection);
        Self::Http2(sender)
    }

    pub(crate) async fn of(http2: bool, tunnel: TunnelStream) -> Self {
        if http2 { Self::http2(tunnel).await } else { Self::http1(tunnel).await }
    }

    /// Sends a request; `path` for HTTP/2 becomes a whole URI.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                let (mut parts, body) = request.into_parts();
                parts.uri = format!("http://cart.shop{}", parts.uri).parse().expect("valid");
                parts.headers.remove("host");
                sender.ready().await?;
                sender.send_request(Request::from_parts(parts, body)).await
            }
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        let request = Request::get(path).header("host", "cart.shop").body(Full::default()).expect("valid");
        self.ask(request).await
    }

    pub(crate) async fn ask(&mut self, request: Request<Full<Bytes>>) -> Answer {
        read(self.send(request).await.expect("a response")).await.expect("a whole body")
    }
}

pub(crate) async fn read(response: Response<Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: collected.to_bytes(), trailers })
}
