//! Gateways that end, or are set up otherwise, while requests keep coming: none is lost.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};

use crate::gateway::{GATEWAY, gateway, get};
use crate::server::{Local, serve};
use crate::world::{OUTSIDE, WAYPOINT, World, run_as};

const ONE: &str = "{name: one, port: 8000, protocol: HTTP}";

/// What became of requests.
#[derive(Default)]
struct Load {
    answered: Cell<usize>,
    /// Sent, and never answered as they should be.
    lost: Cell<usize>,
    /// Connections that were made.
    connections: Cell<usize>,
    stopped: Cell<bool>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn connect(is_http2: bool) -> Option<Self> {
        let stream = TokioIo::new(TcpStream::connect((WAYPOINT, 8000)).await.ok()?);
        Some(if is_http2 {
            let (sender, connection) = http2::handshake(Local, stream).await.ok()?;
            spawn_local(connection);
            Self::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(stream).await.ok()?;
            spawn_local(connection);
            Self::Http1(sender)
        })
    }

    /// Whether another request may be sent: the gateway has not said that it ends the connection.
    async fn is_open(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Whether a request is answered whole; none where it was not sent.
    async fn ask(&mut self) -> Option<bool> {
        let request =
            Request::get("http://a.example/").header("host", "a.example").body(Full::default()).expect("valid");
        let answer = match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => {
                let (mut parts, body) = request.into_parts();
                parts.headers.remove("host");
                parts.version = Version::HTTP_2;
                sender.send_request(Request::from_parts(parts, body)).await
            }
        };
        match answer {
            Ok(answer) if answer.status() == 200 => Some(answer.into_body().collect().await.is_ok()),
            Err(error) if error.is_canceled() || is_unprocessed(&error) => None,
            Ok(answer) => {
                eprintln!("answered with {}", answer.status());
                Some(false)
            }
            Err(error) => {
                eprintln!("{error:?}");
                Some(false)
            }
        }
    }
}

/// RFC 9113, section 6.8: what comes after the last stream that GOAWAY names has not been processed, and may be sent again.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR))
}

impl Load {
    /// Clients that ask one request after the other on connections that stay, until nobody takes connections, or for ever.
    fn start(clients: usize) -> (Rc<Self>, Vec<JoinHandle<()>>) {
        let load = Rc::<Self>::default();
        let client = |index: usize| {
            let load = load.clone();
            spawn_local(async move {
                while let Some(mut sender) = Sender::connect(index.is_multiple_of(3)).await {
                    load.connections.set(load.connections.get() + 1);
                    while !load.stopped.get() && sender.is_open().await {
                        match sender.ask().await {
                            Some(true) => load.answered.set(load.answered.get() + 1),
                            Some(false) => load.lost.set(load.lost.get() + 1),
                            None => break,
                        }
                    }
                    if load.stopped.get() {
                        return;
                    }
                }
            })
        };
        let clients = (0..clients).map(client).collect();
        (load, clients)
    }

    async fn answered(&self, more: usize) {
        let until = self.answered.get() + more;
        while self.answered.get() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[test]
fn a_gateway_that_ends_loses_no_request() {
    run_as(GATEWAY, &gateway(ONE), async |mut world: World| {
        serve(OUTSIDE, 8080, false).await;
        assert_eq!(get("http://a.example:8000/", &[]).await.0, "200");
        let (load, clients) = Load::start(24);
        load.answered(500).await;
        assert_eq!(load.connections.get(), 24, "connections stay");
        world.terminate();
        while world.readiness().await.expect("an answer") != 503 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Until its load balancer has heard of that, clients come.
        assert_eq!(get("http://a.example:8000/", &[]).await.0, "200");
        load.answered(100).await;
        for client in clients {
            client.await.expect("a client");
        }
        assert_eq!(load.lost.get(), 0, "of {}", load.answered.get());
        assert!(load.connections.get() > 24, "its clients were told to leave");
        while world.ended().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(world.ended(), Some(true));
    });
}

#[test]
fn listeners_and_routes_that_change_lose_no_request() {
    run_as(GATEWAY, &gateway(ONE), async |world: World| {
        serve(OUTSIDE, 8080, false).await;
        assert_eq!(get("http://a.example:8000/", &[]).await.0, "200");
        let (load, clients) = Load::start(12);
        let other = format!("{ONE}, {{name: two, port: 8002, protocol: HTTP}}");
        let narrower = ONE.replace("protocol", "hostname: '*.example', protocol");
        for listeners in [&other, ONE, &narrower, &other, ONE] {
            world.configure(&gateway(listeners));
            let is_there = async || TcpStream::connect((WAYPOINT, 8002)).await.is_ok();
            while is_there().await != listeners.contains("8002") {
                load.answered(10).await;
            }
            load.answered(200).await;
        }
        load.stopped.set(true);
        for client in clients {
            client.await.expect("a client");
        }
        assert_eq!((load.lost.get(), load.connections.get()), (0, 12), "of {}", load.answered.get());
    });
}
