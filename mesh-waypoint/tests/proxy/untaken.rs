//! Streams that nobody reads, of clients and of endpoints: what else goes by the same HTTP/2 connection goes on.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_frames::{END_HEADERS, END_STREAM, Kind, PREFACE, Wire, frame, setting, with_fields};
use mesh_transport::hbone::TunnelStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::server::{Client, serve};
use crate::world::{CARTS, World, run_by_hbone};

/// One endpoint, at which every request of a thread's clients shares a connection; clients of one HBONE connection are of one
/// thread.
const POD: &str = "10.1.0.11:9595";
/// More streams than what they leave unread had room for in a connection's window of 1 MiB.
const STALLED: usize = 24;
/// More than the windows of all of them.
const LONG: usize = 8 << 20;
/// The least window that HTTP/2 has, and what it begins with.
const LEAST: u32 = 65_535;

/// A client whose streams may be sent 16 KiB, and no octet more, as nothing of it is ever taken.
async fn stalled(world: &World) -> Wire<TunnelStream> {
    let (mut wire, listening) = Wire::silent(world.tunnel(POD).await.expect("tunnel"));
    spawn_local(listening);
    let settings = frame(Kind::Settings, 0, 0, &setting(4, 16 << 10));
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "cart.shop"), (":path", "/endless")];
    let head = frame(Kind::Headers, END_HEADERS | END_STREAM, 1, &with_fields(&fields));
    wire.send(&[PREFACE, &settings, &head].concat()).await.expect("write");
    let heard = wire.wait(|heard| heard.answers.get(&1).is_some_and(|answer| answer.octets == 16 << 10)).await;
    assert!(!heard.ended, "{heard:?}");
    wire
}

fn echo(body: Vec<u8>) -> Request<Full<Bytes>> {
    Request::post("/echo").header("host", "cart.shop").body(Full::new(body.into())).expect("valid")
}

async fn client(world: &World) -> Client {
    Client::http2(world.tunnel(POD).await.expect("tunnel")).await
}

#[test]
fn clients_that_take_nothing_hold_up_no_other_client_of_their_endpoint() {
    run_by_hbone(async |world| {
        let backend = serve(CARTS[0], 9595, true).await;
        let mut held = Vec::new();
        for _ in 0..STALLED {
            held.push(stalled(&world).await);
        }
        let sent = vec![b'x'; LONG];
        let answer = client(&world).await.ask(echo(sent.clone())).await;
        assert!(answer.status == 200 && answer.body == sent, "{} of {} octets", answer.body.len(), sent.len());
        assert_eq!(backend.connections.get(), 1, "they did not share a connection");
        assert!(held.iter().all(|wire| wire.heard().resets.is_empty() && !wire.heard().ended));
    });
}

/// An endpoint that reads no body of `/never`. Its streams have the least window that HTTP/2 has.
struct Reader {
    connections: Cell<usize>,
    /// A body has filled the window of its stream.
    is_full: Notify,
}

impl Reader {
    /// One whose connections have that window.
    async fn serve(window: u32) -> Rc<Self> {
        let listener = TcpListener::bind((CARTS[0], 9595)).await.expect("listen");
        let reader = Rc::new(Self { connections: Cell::new(0), is_full: Notify::new() });
        let serving = reader.clone();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.set(serving.connections.get() + 1);
                spawn_local(serving.clone().connection(stream, window));
            }
        });
        reader
    }

    async fn connection(self: Rc<Self>, stream: TcpStream, window: u32) {
        let mut builder = h2::server::Builder::new();
        let handshake = builder.initial_connection_window_size(window).handshake::<_, Bytes>(stream);
        let mut connection = handshake.await.expect("handshake");
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let reader = self.clone();
            spawn_local(async move {
                let path = request.uri().path().to_owned();
                let mut body = request.into_body();
                if path == "/never" {
                    while body.flow_control().used_capacity() < LEAST as usize {
                        tokio::task::yield_now().await;
                    }
                    reader.is_full.notify_one();
                    // Held, and never read.
                    std::future::pending::<()>().await;
                }
                let mut count = 0;
                while let Some(Ok(data)) = poll_fn(|cx| body.poll_data(cx)).await {
                    count += data.len();
                    let _ = body.flow_control().release_capacity(data.len());
                }
                let answer = Response::builder().header("x-octets", count).body(()).expect("valid");
                let _ = respond.send_response(answer, true);
            });
        }
    }
}

/// With gRPC's windows, one upload that is not read is all that a connection has room for.
#[test]
fn a_body_that_an_endpoint_does_not_take_holds_up_no_other_request() {
    run_by_hbone(async |world| {
        let reader = Reader::serve(LEAST).await;
        let mut first = client(&world).await;
        let stuck = Request::post("/never").header("host", "cart.shop").body(Full::new(vec![b'n'; 1 << 20].into()));
        let stuck = spawn_local(async move { first.send(stuck.expect("valid")).await.map(drop) });
        reader.is_full.notified().await;
        // One without a body needs no window, and so no other connection.
        let mut second = client(&world).await;
        assert_eq!((second.get("/").await.status, reader.connections.get()), (200, 1));
        // Ten more, at once, share the second.
        let mut uploads = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let mut client = client(&world).await;
            uploads.spawn_local(async move { client.ask(echo(vec![b'u'; 1000])).await });
        }
        for answer in uploads.join_all().await {
            assert_eq!((answer.status, &answer.headers["x-octets"]), (200, &http::HeaderValue::from_static("1000")));
        }
        assert_eq!(reader.connections.get(), 2);
        let long = second.ask(echo(vec![b'l'; 4 << 20])).await;
        assert_eq!(long.headers["x-octets"], (4 << 20).to_string().as_str());
        assert!(!stuck.is_finished());
        stuck.abort();
    });
}

/// The same to us: uploads of one client, of which the endpoint takes nothing.
#[test]
fn uploads_that_nobody_takes_hold_up_no_other_stream_of_their_client() {
    run_by_hbone(async |world| {
        let reader = Reader::serve(64 << 20).await;
        let mut client = client(&world).await;
        let Client::Http2(sender) = &client else { unreachable!("HTTP/2 was asked for") };
        for _ in 0..STALLED {
            let mut sender = sender.clone();
            let body = Full::new(vec![b'n'; 1 << 20].into());
            let request = Request::post("http://cart.shop/never").body(body).expect("valid");
            spawn_local(async move { sender.send_request(request).await.map(drop) });
            reader.is_full.notified().await;
        }
        let answer = client.ask(echo(vec![b'l'; 4 << 20])).await;
        assert_eq!(answer.headers["x-octets"], (4 << 20).to_string().as_str());
    });
}
