//! A node's daemon, asked through its Unix socket.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use form_urlencoded::Serializer;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mesh_admin::{DEFAULT_SOCKET, Refusal};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest answer that is read whole, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// The longest line of a stream, in bytes.
const MAX_LINE: usize = 1 << 20;

/// Who is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Asked {
    #[default]
    Node,
    Waypoint,
}

/// Which daemon to ask.
#[derive(Debug, Clone, Args)]
pub(crate) struct Daemon {
    /// The admin socket of the node's daemon.
    #[arg(long, value_name = "PATH", env = "MESH_ADMIN_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    #[arg(skip)]
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
    /// Asks for a resource.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str, query: Query<'_>) -> anyhow::Result<T> {
        self.ask(Method::GET, path, query, Vec::new())
    }

    /// Puts a value in force, and returns what is in force then.
    pub(crate) fn put<T: Serialize + DeserializeOwned>(&self, path: &str, value: &T) -> anyhow::Result<T> {
        self.ask(Method::PUT, path, &[], serde_json::to_vec(value)?)
    }

    /// The daemon with this socket.
    pub(crate) fn at(socket: PathBuf) -> Self {
        Self { socket, asked: Asked::Node }
    }

    /// The waypoint or gateway with this socket.
    pub(crate) fn waypoint_at(socket: PathBuf) -> Self {
        Self { socket, asked: Asked::Waypoint }
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: Vec<u8>,
    ) -> anyhow::Result<T> {
        runtime()?.block_on(self.exchange(method, path, query, body))
    }

    /// Asks for a resource, in a program that asks several daemons at once.
    pub(crate) async fn fetch<T: DeserializeOwned>(&self, path: &str, query: Query<'_>) -> anyhow::Result<T> {
        self.exchange(Method::GET, path, query, Vec::new()).await
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
    /// Ends when that says so, when the daemon ends, or after `limit`.
    pub(crate) fn follow(
        &self,
        path: &str,
        query: Query<'_>,
        limit: Option<Duration>,
        begun: impl FnOnce() -> anyhow::Result<()>,
        on_line: impl FnMut(&str) -> anyhow::Result<Next>,
    ) -> anyhow::Result<()> {
        let lines = self.lines(path, query, begun, on_line);
        runtime()?.block_on(async {
            match limit {
                // Time is up.
                Some(limit) => tokio::time::timeout(limit, lines).await.unwrap_or(Ok(())),
                None => lines.await,
            }
        })
    }

    /// As [`Self::follow`], without a limit, in a program that follows several daemons at once.
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

    /// Sends a request; an answer that is no success becomes an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: Vec<u8>,
    ) -> anyhow::Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.not_reached(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut target = path.to_owned();
        if !query.is_empty() {
            let pairs = query.iter().map(|(name, value)| (*name, value));
            target = format!("{path}?{}", Serializer::new(String::new()).extend_pairs(pairs).finish());
        }
        let request = Request::builder().method(method).uri(target).header("host", "mesh-node");
        let sent = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await;
        let response = sent.with_context(|| format!("{} broke off; if it has many clients, try again", self.name()))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        match serde_json::from_slice(&body) {
            Ok(Refusal { error, remedy: Some(remedy) }) => bail!("{error}; {remedy}"),
            Ok(Refusal { error, remedy: None }) => bail!("{error}"),
            Err(_) => bail!("{} answers with {status}", self.name()),
        }
    }

    pub(crate) fn name(&self) -> String {
        match self.asked {
            Asked::Node => format!("the daemon at {}", self.socket.display()),
            Asked::Waypoint => format!("the waypoint at {}", self.socket.display()),
        }
    }

    fn not_reached(&self, error: &io::Error) -> anyhow::Error {
        let (name, socket) = (self.name(), self.socket.display());
        let (what, remedy) = match self.asked {
            Asked::Node => {
                ("daemon", "start mesh-node on this node, or name the socket of one that runs with --socket".to_owned())
            }
            Asked::Waypoint => (
                "waypoint",
                format!(
                    "start mesh-waypoint with --admin-socket {socket}, or name the socket of one that runs with --socket"
                ),
            ),
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

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")
}
