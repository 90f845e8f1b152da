//! Connections to endpoints that become too old, or whose other end is gone.

use std::cell::Cell;
use std::process::Command;
use std::rc::Rc;

use http::Request;
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::server::{Client, serve};
use crate::world::{OUTSIDE, World, ip, run_with};

fn rule(pool: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: outside, namespace: shop}}\n\
         spec: {{host: outside, trafficPolicy: {{connectionPool: {pool}}}}}\n"
    )
}

async fn client(world: &World) -> Client {
    Client::http1(world.tunnel("10.96.0.2:80").await.expect("tunnel")).await
}

/// What happens at a server that answers at once, but for the path `/held`, whose answer waits to be released.
#[derive(Default)]
struct Events {
    held: Notify,
    release: Notify,
    ended: Notify,
    connections: Cell<usize>,
}

async fn listen() -> Rc<Events> {
    let listener = TcpListener::bind((OUTSIDE, 8080)).await.expect("listen");
    let events = Rc::<Events>::default();
    let happening = events.clone();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            happening.connections.set(happening.connections.get() + 1);
            let events = happening.clone();
            spawn_local(async move {
                answer(stream, &events).await.expect("it ends in order");
                events.ended.notify_one();
            });
        }
    });
    events
}

async fn answer(mut stream: TcpStream, events: &Events) -> std::io::Result<()> {
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await? > 0 {
        if !read.ends_with(b"\r\n\r\n") {
            continue;
        }
        if read.starts_with(b"GET /held ") {
            events.held.notify_one();
            events.release.notified().await;
        }
        read.clear();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await?;
    }
    Ok(())
}

#[test]
fn an_old_connection_ends_in_order_and_not_before_its_request() {
    run_with(&rule("{tcp: {maxConnectionDuration: 0.3s}}"), async |world| {
        let events = listen().await;
        let mut patient = client(&world).await;
        let held = spawn_local(async move { patient.get("/held").await });
        events.held.notified().await;
        // A connection that is younger, and that nobody uses.
        assert_eq!(client(&world).await.get("/").await.status, 200);
        events.ended.notified().await;
        assert_eq!(events.connections.get(), 2);
        events.release.notify_one();
        assert_eq!(held.await.expect("no panic").status, 200, "its request goes on");
        events.ended.notified().await;
        assert_eq!(client(&world).await.get("/").await.status, 200);
        assert_eq!(events.connections.get(), 3);
    });
}

#[test]
fn requests_leave_an_old_connection_to_those_that_are_on_it() {
    run_with(&rule("{tcp: {maxConnectionDuration: 0.3s}, http: {h2UpgradePolicy: UPGRADE}}"), async |world| {
        let outside = serve(OUTSIDE, 8080, true).await;
        let tunnel = world.tunnel("10.96.0.2:80").await.expect("tunnel");
        let mut client = Client::http2(tunnel).await;
        let endless = Request::get("/endless").header("host", "outside").body(Full::default()).expect("valid");
        let mut endless = client.send(endless).await.expect("a response").into_body();
        while outside.connections.get() == 1 {
            assert_eq!(client.get("/").await.status, 200);
        }
        for _ in 0..100 {
            endless.frame().await.expect("it goes on").expect("it goes on");
        }
    });
}

/// As the kernel lists them, with their timers.
fn open_to_outside() -> String {
    let arguments = ["-tno", "state", "established", "dst", OUTSIDE, "dport", "=", ":8080"];
    let listed = Command::new("ss").arg("--no-header").args(arguments).output().expect("ss");
    assert!(listed.status.success(), "{listed:?}");
    String::from_utf8(listed.stdout).expect("text")
}

#[test]
fn a_connection_whose_other_end_is_gone_is_noticed_by_probes() {
    run_with(&rule("{tcp: {tcpKeepalive: {time: 1s, interval: 1s, probes: 2}}}"), async |world| {
        listen().await;
        let mut client = client(&world).await;
        assert_eq!(client.get("/").await.status, 200);
        assert!(open_to_outside().contains("timer:(keepalive,"), "{}", open_to_outside());
        // Nothing reaches the server any more, and nothing comes back.
        ip(&["address", "del", &format!("{OUTSIDE}/32"), "dev", "lo"]);
        while !open_to_outside().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
}
