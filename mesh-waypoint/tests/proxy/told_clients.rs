//! Endpoints that are told by the PROXY protocol whose connection it is.

use std::cell::RefCell;
use std::rc::Rc;

use mesh_transport::proxy_protocol::{Parsed, parse};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::server::Client;
use crate::world::{CARTS, CLIENT, OUTSIDE, STRANGER, World, run_with};

fn rule(host: &str, version: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: told, namespace: shop}}\n\
         spec: {{host: {host}, trafficPolicy: {{proxyProtocol: {version}}}}}\n"
    )
}

/// The header that a connection begins with, and nothing of what follows.
async fn header(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    loop {
        match parse(&read).expect("a header of the PROXY protocol") {
            Parsed::Header { .. } => return read,
            Parsed::Incomplete => read.push(stream.read_u8().await.expect("a header")),
        }
    }
}

/// A server that answers whatever comes after the header of its connection with who it is from, and keeps the connection.
async fn listen(address: &'static str, port: u16) -> Rc<RefCell<Vec<Vec<u8>>>> {
    let listener = TcpListener::bind((address, port)).await.expect("listen");
    let headers = Rc::<RefCell<Vec<Vec<u8>>>>::default();
    let heard = headers.clone();
    spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let heard = heard.clone();
            spawn_local(async move {
                let header = header(&mut stream).await;
                let Ok(Parsed::Header { source, .. }) = parse(&header) else { unreachable!("it is one") };
                heard.borrow_mut().push(header);
                let source = source.map(|source| source.to_string()).unwrap_or_default();
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while stream.read_line(&mut line).await.is_ok_and(|count| count > 0) {
                    if line.ends_with("\r\n\r\n") {
                        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{source}", source.len());
                        let _ = stream.write_all(answer.as_bytes()).await;
                        line.clear();
                    } else if line == "who\n" {
                        let _ = stream.write_all(source.as_bytes()).await;
                        return;
                    }
                }
            });
        }
    });
    headers
}

async fn client(world: &World, (pod, account): (&str, &str), target: &str) -> Client {
    Client::http1(world.tunnel_from(pod, account, target).await.expect("tunnel")).await
}

#[test]
fn each_request_comes_by_a_connection_that_says_whose_it_is() {
    for (version, begins) in
        [("{version: V1}", &b"PROXY TCP4 10.1.0."[..]), ("{version: V2}", b"\r\n\r\n\0\r\nQUIT\n\x21\x11")]
    {
        run_with(&rule("outside", version), async move |world| {
            let headers = listen(OUTSIDE, 8080).await;
            let mut known = client(&world, (CLIENT, "client"), "10.96.0.2:80").await;
            let mut stranger = client(&world, (STRANGER, "stranger"), "10.96.0.2:80").await;
            for _ in 0..2 {
                assert_eq!(known.get("/").await.body, format!("{CLIENT}:40000"));
                assert_eq!(stranger.get("/").await.body, format!("{STRANGER}:40000"));
            }
            let headers = headers.borrow();
            assert!(headers.len() == 4 && headers.iter().all(|header| header.starts_with(begins)), "{headers:?}");
        });
    }
}

/// In the mesh the header is within the tunnel.
#[test]
fn connections_begin_with_it_before_anything_of_their_clients() {
    run_with(&rule("cart", "{}"), async |world| {
        for cart in CARTS {
            listen(cart, 9090).await;
        }
        let mut stream = world.tunnel("10.96.0.1:90").await.expect("tunnel");
        stream.write_all(b"who\n").await.expect("write");
        let mut source = String::new();
        stream.read_to_string(&mut source).await.expect("an answer");
        assert_eq!(source, format!("{CLIENT}:40000"));
    });
}
