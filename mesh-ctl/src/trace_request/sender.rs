//! One request, from a socket of a pod's network namespace.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow, bail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_core::TraceContext;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::Order;

/// Bytes of an answer that are read; what is longer is left.
const MAX_ANSWER: usize = 16 << 20;

/// By what a request is known everywhere.
pub(super) struct Marks {
    /// The trace, as 32 hexadecimal digits.
    pub(super) trace: String,
    span: String,
    /// Whether in B3's form as well.
    b3: bool,
}

/// A request that was sent, and what came of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sent {
    /// The client's end, which hops know it by; none where there was no connection.
    pub(super) local: Option<SocketAddr>,
    /// When, in milliseconds since 1970 (UTC).
    pub(super) at_milliseconds: u64,
    /// From the connection's begin to the answer's end, in microseconds.
    pub(super) took_microseconds: u64,
    /// The answer's status and length, or why there is none.
    pub(super) answer: Result<(u16, usize), String>,
}

impl Marks {
    /// The trace that the header names, of which it takes the field out; else one that is new.
    pub(super) fn new(headers: &mut Vec<(String, String)>, b3: bool) -> anyhow::Result<Self> {
        if let Some(at) = headers.iter().position(|(name, _)| name == "traceparent") {
            let (_, value) = headers.swap_remove(at);
            let known: TraceContext = value.parse().with_context(|| {
                format!("traceparent: {value:?} is none: write 00-TRACE-SPAN-01, of 32 and 16 hexadecimal digits")
            })?;
            return Ok(Self { trace: hex(&known.trace_id), span: hex(&known.span_id), b3 });
        }
        let mut octets = [0; 24];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut octets)).context("/dev/urandom")?;
        let (trace, span) = octets.split_at(16);
        Ok(Self { trace: hex(trace), span: hex(span), b3 })
    }

    /// The fields of its header: sampled, so that every hop records it.
    pub(super) fn fields(&self) -> Vec<(String, String)> {
        let (trace, span) = (&self.trace, &self.span);
        let mut fields = vec![("traceparent".to_owned(), format!("00-{trace}-{span}-01"))];
        fields.extend(self.b3.then(|| ("b3".to_owned(), format!("{trace}-{span}-1"))));
        fields
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The network namespace of that inode number, by a process that is in it.
pub(super) fn network_namespace(inode: u64) -> anyhow::Result<File> {
    let name = format!("net:[{inode}]");
    for entry in fs::read_dir("/proc").context("/proc")?.flatten() {
        let link = entry.path().join("ns/net");
        // Processes end, and some are nobody's to look into.
        if fs::read_link(&link).is_ok_and(|found| found.as_os_str() == name.as_str()) {
            let file = File::open(&link).with_context(|| link.display().to_string())?;
            // Another process may have got its number meanwhile.
            if file.metadata().is_ok_and(|found| found.ino() == inode) {
                return Ok(file);
            }
        }
    }
    bail!("no process of the pod is found here: run this on the pod's node, as root, in the node's own pid namespace")
}

/// Sends it from that network namespace. That there is no answer is one.
pub(super) async fn send(namespace: File, asked: &Order) -> anyhow::Result<Sent> {
    let (to, limit) = (asked.to, Duration::from(asked.limit));
    let mut request = hyper::Request::builder().method(&*asked.method).uri(&*asked.target);
    for (name, value) in &asked.headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).context("the request")?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let begun = Instant::now();
    let connected = tokio::task::spawn_blocking(move || {
        // A thread of its own, which ends in the namespace.
        let connect = move || -> anyhow::Result<TcpStream> {
            let entered = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
            entered.context("entering the pod's network namespace: run this as root")?;
            TcpStream::connect_timeout(&to, limit).with_context(|| format!("connecting {to}"))
        };
        std::thread::spawn(connect).join().unwrap_or_else(|_| Err(anyhow!("the thread that connects has failed")))
    });
    let mut sent = Sent {
        local: None,
        at_milliseconds: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
        took_microseconds: 0,
        answer: Err("no answer".to_owned()),
    };
    let connected = connected.await?;
    sent.answer = match connected {
        Ok(stream) => {
            sent.local = stream.local_addr().ok();
            let exchanged = tokio::time::timeout(limit, exchange(stream, request)).await;
            match exchanged {
                Ok(answer) => answer.map_err(|error| format!("{error:#}")),
                Err(_elapsed) => Err(format!("no answer within {} s", limit.as_secs())),
            }
        }
        Err(error) => Err(format!("{error:#}")),
    };
    sent.took_microseconds = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok(sent)
}

async fn exchange(stream: TcpStream, request: hyper::Request<Empty<Bytes>>) -> anyhow::Result<(u16, usize)> {
    stream.set_nonblocking(true)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow!("the answer broke off: {error}"))?;
    // Hops tell of a connection once it is over.
    drop(sender);
    driving.abort();
    Ok((status, body.to_bytes().len()))
}
