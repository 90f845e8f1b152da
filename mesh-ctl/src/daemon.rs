//! A daemon or waypoint, asked through its Unix socket, or by the API server's way to its pod's loopback.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use form_urlencoded::Serializer;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mesh_admin::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use crate::cluster::{Complaint, PodName};

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest answer that is read whole, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// The longest line of a stream, in bytes.
const MAX_LINE: usize = 1 << 20;

/// How long a pod may take to say why a port of it cannot be used.
const COMPLAINT: Duration = Duration::from_millis(500);

/// Who is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Asked {
    #[default]
    Node,
    Waypoint,
    /// A replica of mesh-control.
    Control,
}

/// The way to it.
#[derive(Debug, Clone)]
enum Way {
    Socket(PathBuf),
    Pod(Box<PodName>),
}

/// A daemon to ask.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    way: Way,
    asked: Asked,
}

/// Whether to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    More,
    Stop,
}

/// The names and values of a query.
pub(crate) type Query<'a> = &'a [(&'a str, String)];

impl Daemon {
    /// The daemon with this socket.
    pub(crate) fn at(socket: PathBuf) -> Self {
        Self { way: Way::Socket(socket), asked: Asked::Node }
    }

    /// The waypoint or gateway with this socket.
    pub(crate) fn waypoint_at(socket: PathBuf) -> Self {
        Self { way: Way::Socket(socket), asked: Asked::Waypoint }
    }

    /// The one in this pod.
    pub(crate) fn in_pod(pod: PodName, asked: Asked) -> Self {
        Self { way: Way::Pod(Box::new(pod)), asked }
    }

    /// Asks for a resource.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, query: Query<'_>) -> anyhow::Result<T> {
        self.exchange(Method::GET, path, query, Vec::new()).await
    }

    /// Puts a value in force, and returns what is in force then.
    pub(crate) async fn put<T: Serialize + DeserializeOwned>(&self, path: &str, value: &T) -> anyhow::Result<T> {
        self.exchange(Method::PUT, path, &[], serde_json::to_vec(value)?).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: Vec<u8>,
    ) -> anyhow::Result<T> {
        let answer = async {
            let response = self.send(method, path, query, body).await?;
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            Ok::<_, anyhow::Error>(body.map_err(|error| anyhow!("{}: {error}", self.name()))?.to_bytes())
        };
        let late = || format!("{} has not answered within {} s", self.name(), PATIENCE.as_secs());
        let answer = tokio::time::timeout(PATIENCE, answer).await.with_context(late)??;
        serde_json::from_slice(&answer).with_context(|| {
            format!("{} says what this mesh-ctl does not understand; are both of one version?", self.name())
        })
    }

    /// Reads a stream of lines: `begun` is called when the daemon has begun it, then `on_line` with each line.
    /// Ends when that says so, or when the daemon ends.
    pub(crate) async fn lines(
        &self,
        path: &str,
        query: Query<'_>,
        begun: impl FnOnce() -> anyhow::Result<()>,
        mut on_line: impl FnMut(&str) -> anyhow::Result<Next>,
    ) -> anyhow::Result<()> {
        let mut body = self.send(Method::GET, path, query, Vec::new()).await?.into_body();
        begun()?;
        let mut unread = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.with_context(|| format!("{} broke off", self.name()))?;
            unread.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                if on_line(std::str::from_utf8(&line)?)? == Next::Stop {
                    return Ok(());
                }
            }
            anyhow::ensure!(unread.len() <= MAX_LINE, "{} sends lines without an end", self.name());
        }
        bail!("{} has ended", self.name())
    }

    /// What a program says that is run in its pod.
    pub(crate) async fn run(&self, command: &[&str], input: &[u8], limit: Duration) -> anyhow::Result<Vec<u8>> {
        let Way::Pod(pod) = &self.way else { bail!("{} is in no pod", self.name()) };
        let late = || format!("`{}` in {pod} has not ended in time", command.join(" "));
        tokio::time::timeout(PATIENCE + limit, pod.run(command, input)).await.with_context(late)?
    }

    /// Sends a request; an answer that is no success becomes an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: Vec<u8>,
    ) -> anyhow::Result<Response<Incoming>> {
        let (stream, complaint) = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut target = path.to_owned();
        if !query.is_empty() {
            let pairs = query.iter().map(|(name, value)| (*name, value));
            target = format!("{path}?{}", Serializer::new(String::new()).extend_pairs(pairs).finish());
        }
        let request = Request::builder().method(method).uri(target).header("host", "localhost");
        let sent = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await;
        let response = match sent {
            Ok(response) => response,
            Err(error) => return Err(self.broke_off(error.into(), complaint).await),
        };
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        match serde_json::from_slice(&body) {
            Ok(Refusal { error, remedy: Some(remedy) }) => Err(Refused(format!("{error}; {remedy}")).into()),
            Ok(Refusal { error, remedy: None }) => Err(Refused(error).into()),
            Err(_) => bail!("{} answers with {status}", self.name()),
        }
    }

    async fn connect(&self) -> anyhow::Result<(Box<dyn Stream>, Option<Complaint>)> {
        match &self.way {
            Way::Socket(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(|error| self.not_reached(socket, &error))?;
                Ok((Box::new(stream), None))
            }
            Way::Pod(pod) => {
                let (stream, complaint) = pod.connect().await?;
                Ok((Box::new(stream), complaint))
            }
        }
    }

    /// It took the connection and gave no answer.
    async fn broke_off(&self, error: anyhow::Error, complaint: Option<Complaint>) -> anyhow::Error {
        let Way::Pod(pod) = &self.way else {
            return error.context(format!("{} broke off; if it has many clients, try again", self.name()));
        };
        let said = match complaint {
            Some(complaint) => tokio::time::timeout(COMPLAINT, complaint).await.ok().flatten(),
            None => None,
        };
        match said {
            Some(said) => anyhow!("nobody answers in {pod}: {}; {}", said.trim(), pod.remedy()),
            None => error.context(format!("{} broke off", self.name())),
        }
    }

    pub(crate) fn name(&self) -> String {
        let kind = Self::kind(self.asked);
        match &self.way {
            Way::Socket(socket) => format!("the {kind} at {}", socket.display()),
            Way::Pod(pod) => format!("the {kind} in {pod}"),
        }
    }

    fn not_reached(&self, socket: &Path, error: &io::Error) -> anyhow::Error {
        let (name, socket) = (self.name(), socket.display());
        let (what, remedy) = match self.asked {
            Asked::Node => {
                let remedy = "start mesh-node on this node, name the socket of one that runs with --socket, or a cluster with \
                              --kubeconfig";
                ("daemon", remedy.to_owned())
            }
            Asked::Waypoint => (
                "waypoint",
                format!(
                    "start mesh-waypoint with --admin-socket {socket}, or name the socket of one that runs with --socket"
                ),
            ),
            Asked::Control => ("mesh-control", "it has no socket: name its cluster with --kubeconfig".to_owned()),
        };
        match error.kind() {
            ErrorKind::NotFound => anyhow!("no {what} at {socket}: {remedy}"),
            ErrorKind::ConnectionRefused => {
                anyhow!("no {what} listens at {socket}: the one that made it has ended; {remedy}")
            }
            ErrorKind::PermissionDenied => {
                anyhow!("{socket} is for root and the {what}'s own user: run mesh-ctl with sudo")
            }
            _ => anyhow!("cannot reach {name}: {error}; name its socket with --socket"),
        }
    }
}

/// A daemon's own word that it does not do what it is asked for.
#[derive(Debug)]
pub(crate) struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// What HTTP is spoken over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}
