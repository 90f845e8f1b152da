//! Many connections at once that want nothing but to be there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::ValueEnum;
use http::{Method, Request, Uri};
use mesh_frames::{Kind, frame};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::client::TlsStream;

use crate::first_bytes::hello;
use crate::peer::{first_answer, shake_hands};

/// Handshakes and connect() calls under way at once.
const AT_ONCE: usize = 256;
/// Between two octets of a slow handshake.
const DRIBBLE: Duration = Duration::from_millis(500);

/// What each of the connections does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Crowd {
    /// Nothing
    Idle,
    /// Sends its ClientHello octet by octet
    Dribble,
    /// Sends its ClientHello and nothing more
    Hello,
    /// Shakes hands with a good certificate and then does nothing
    Authenticated,
    /// Shakes hands for mesh-tunnel/1 and then sends half of a record
    HalfRecord,
    /// Opens tunnels to an application that does not read, and fills them
    Stuffed,
}

/// What the connections share.
pub(crate) struct Plan {
    pub(crate) to: SocketAddr,
    pub(crate) crowd: Crowd,
    pub(crate) count: usize,
    /// Of each connection, where it asks for any.
    pub(crate) tunnels: usize,
    /// What tunnels are asked for.
    pub(crate) target: SocketAddr,
    pub(crate) config: Arc<ClientConfig>,
}

/// Opens them all, says so, and waits until the server has closed all, or a line of input or its end comes.
pub(crate) async fn gather(plan: Plan) -> Result<Value> {
    let (release, end) = watch::channel(false);
    let count = plan.count;
    let shared = Arc::new((plan, Semaphore::new(AT_ONCE), Barrier::new(count + 1)));
    let mut members = JoinSet::new();
    for _ in 0..count {
        let (shared, end) = (shared.clone(), end.clone());
        members.spawn(async move { member(&shared.0, &shared.1, &shared.2, end).await });
    }
    shared.2.wait().await;
    println!("{}", json!({ "event": "holding", "connections": count }));
    let mut endings: BTreeMap<String, u64> = BTreeMap::new();
    let mut input = BufReader::new(tokio::io::stdin());
    let mut line = String::new();
    let mut released = false;
    while !members.is_empty() {
        tokio::select! {
            Some(ended) = members.join_next() => *endings.entry(ended?).or_default() += 1,
            // A line, the end of the input or a failure to read it: all release them.
            _ = input.read_line(&mut line), if !released => { released = true; release.send_replace(true); }
        }
    }
    Ok(json!({ "endings": endings }))
}

/// One connection, from its opening to how it ended.
async fn member(plan: &Plan, places: &Semaphore, all_open: &Barrier, mut end: watch::Receiver<bool>) -> String {
    let opened = {
        let _place = places.acquire().await;
        open(plan).await
    };
    all_open.wait().await;
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => return format!("not opened: {error:#}"),
    };
    tokio::select! {
        ending = opened.stay(plan) => ending,
        _ = end.wait_for(|end| *end) => "held to our end".to_owned(),
    }
}

enum Opened {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Tunnels(Vec<h2::SendStream<Bytes>>),
}

async fn open(plan: &Plan) -> Result<Opened> {
    match plan.crowd {
        Crowd::Idle | Crowd::Dribble => Ok(Opened::Plain(TcpStream::connect(plan.to).await?)),
        Crowd::Hello => {
            let mut stream = TcpStream::connect(plan.to).await?;
            stream.write_all(&hello(plan.config.clone())?).await?;
            Ok(Opened::Plain(stream))
        }
        Crowd::Authenticated => {
            let mut stream = shake_hands(plan.to, plan.config.clone()).await?;
            let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(Kind::Settings, 0, 0, &[])].concat();
            stream.write_all(&preface).await?;
            stream.flush().await?;
            let answer = first_answer(&mut stream).await;
            anyhow::ensure!(answer == "accepted", "{answer}");
            Ok(Opened::Tls(Box::new(stream)))
        }
        Crowd::HalfRecord => {
            let mut stream = shake_hands(plan.to, plan.config.clone()).await?;
            stream.get_mut().0.write_all(&[&[23, 3, 3, 0x40, 0][..], &[7; 1000]].concat()).await?;
            Ok(Opened::Tls(Box::new(stream)))
        }
        Crowd::Stuffed => stuff(plan).await.map(Opened::Tunnels),
    }
}

/// Opens tunnels and writes until no window is left.
async fn stuff(plan: &Plan) -> Result<Vec<h2::SendStream<Bytes>>> {
    let stream = shake_hands(plan.to, plan.config.clone()).await?;
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let mut sender = sender.ready().await?;
    let mut tunnels = Vec::new();
    for _ in 0..plan.tunnels {
        let uri = Uri::builder().authority(plan.target.to_string()).build()?;
        let request = Request::builder().method(Method::CONNECT).uri(uri).body(())?;
        let (response, mut send) = sender.send_request(request, false)?;
        anyhow::ensure!(response.await?.status().is_success(), "refused");
        // More than any window: what does not fit waits here, not there.
        send.send_data(Bytes::from_static(&[7; 1 << 20]), false)?;
        for _ in 0..15 {
            send.send_data(Bytes::from_static(&[7; 1 << 20]), false)?;
        }
        tunnels.push(send);
        sender = sender.ready().await?;
    }
    Ok(tunnels)
}

impl Opened {
    /// Goes on as the plan has it, until the server ends the connection.
    async fn stay(self, plan: &Plan) -> String {
        match self {
            Self::Plain(stream) if plan.crowd == Crowd::Dribble => dribble(stream, plan).await,
            Self::Plain(mut stream) => until_end(&mut stream).await,
            Self::Tls(mut stream) => until_end(&mut *stream).await,
            Self::Tunnels(mut tunnels) => match tunnels.first_mut() {
                Some(first) => format!("{:?}", std::future::poll_fn(|cx| first.poll_reset(cx)).await),
                None => "no tunnel".to_owned(),
            },
        }
    }
}

async fn until_end(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut scratch = [0; 64];
    loop {
        match stream.read(&mut scratch).await {
            Ok(0) => return "end".to_owned(),
            Ok(_) => {}
            Err(error) => return format!("{:?}", error.kind()),
        }
    }
}

async fn dribble(mut stream: TcpStream, plan: &Plan) -> String {
    let bytes = match hello(plan.config.clone()).context("hello") {
        Ok(bytes) => bytes,
        Err(error) => return format!("{error:#}"),
    };
    let (mut read, mut write) = stream.split();
    let send = async {
        for byte in bytes {
            if write.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(DRIBBLE).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = send => String::new(),
        ending = until_end(&mut read) => ending,
    }
}
