//! Clients in pods, and what they saw.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Output, Place, Process};
use serde_json::Value;

use crate::PATIENCE;

/// Runs a `mesh-traffic` client to its end and fails unless its outcome is `ok`.
pub fn traffic(place: &impl Place, operation: &str, to: SocketAddr, more: &[&str]) -> Result<Value> {
    let limit = PATIENCE.as_secs().to_string();
    let to = to.to_string();
    let mut argv = vec!["mesh-traffic", operation, "--to", &to, "--timeout", &limit];
    argv.extend(more);
    let output = place.exec_within(PATIENCE + Duration::from_secs(30), &argv)?;
    output.success().with_context(|| format!("{operation} {to} {more:?}"))?;
    output.json()
}

/// One connection by `mesh-traffic connect`: it sends a line and reads a line.
#[derive(Clone, Debug)]
pub struct Connect {
    to: SocketAddr,
    arguments: Vec<String>,
    seconds: u64,
}

impl Connect {
    /// A blocking connect() on a socket of the address's family.
    pub fn to(to: SocketAddr) -> Self {
        Self { to, arguments: Vec::new(), seconds: PATIENCE.as_secs() }
    }

    /// Binds to this address first.
    #[must_use]
    pub fn from(self, from: SocketAddr) -> Self {
        self.with(&["--from", &from.to_string()])
    }

    /// Uses an AF_INET6 socket and the IPv4-mapped form of the address.
    #[must_use]
    pub fn mapped(self) -> Self {
        self.with(&["--family", "v4-mapped"])
    }

    /// Calls connect() on a non-blocking socket.
    #[must_use]
    pub fn nonblocking(self) -> Self {
        self.with(&["--nonblocking"])
    }

    /// Sends this line in place of a greeting.
    #[must_use]
    pub fn saying(self, line: &str) -> Self {
        self.with(&["--message", &format!("{line}\n")])
    }

    /// Sends nothing: the server has the first word.
    #[must_use]
    pub fn silent(self) -> Self {
        self.with(&["--message", ""])
    }

    /// Gives up after so many seconds, where no answer is what should come.
    #[must_use]
    pub fn for_seconds(mut self, seconds: u64) -> Self {
        self.seconds = seconds;
        self
    }

    fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Runs it, however it ends.
    pub fn run(&self, place: &impl Place) -> Result<Answer> {
        let (to, seconds) = (self.to.to_string(), self.seconds.to_string());
        let mut argv = vec!["mesh-traffic", "connect", "--to", &to, "--timeout", &seconds];
        argv.extend(self.arguments.iter().map(String::as_str));
        let output = place.exec_within(PATIENCE + Duration::from_secs(30), &argv)?;
        Answer::read(&output)
    }

    /// Runs it; fails unless a line came back.
    pub fn answered(&self, place: &impl Place) -> Result<Answer> {
        let answer = self.run(place)?;
        ensure!(answer.outcome == "ok", "{self:?} from {:?}: {answer:?}", place.addresses());
        Ok(answer)
    }
}

/// What a connection showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How connect() ended.
    pub connect: String,
    /// How all of it ended: `ok` when a line came back.
    pub outcome: String,
    /// The line.
    pub text: String,
    /// What getpeername() said; none without a connection.
    pub peer: Option<SocketAddr>,
    /// What getsockname() said.
    pub local: Option<SocketAddr>,
}

impl Answer {
    fn read(output: &Output) -> Result<Self> {
        let said = output.json()?;
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            connect: text("connect"),
            outcome: text("outcome"),
            text: text("text"),
            peer: address(&said["peer"]),
            local: address(&said["local"]),
        })
    }

    /// What `report-peer` said: whom its accept() showed, and its own address.
    pub fn seen_by_server(&self) -> Result<(SocketAddr, SocketAddr)> {
        let said: Value = serde_json::from_str(&self.text).with_context(|| format!("{self:?}"))?;
        let both = address(&said["peer"]).zip(address(&said["local"]));
        both.with_context(|| format!("{self:?}"))
    }

    /// Whether the connection came to nothing at once: refused, or accepted and then reset.
    pub fn was_refused(&self) -> bool {
        ["refused", "reset"].contains(&self.outcome.as_str())
    }
}

/// An address with the mapped form undone: whose address is it?
fn address(value: &Value) -> Option<SocketAddr> {
    let address: SocketAddr = value.as_str()?.parse().ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// A connection to `echo` that is held open by `mesh-traffic hold`.
#[derive(Debug)]
pub struct Held {
    process: Process,
    lines: usize,
}

impl Held {
    /// Opens it.
    pub fn open(place: &impl Place, to: SocketAddr) -> Result<Self> {
        let limit = PATIENCE.as_secs().to_string();
        let argv = ["mesh-traffic", "hold", "--to", &to.to_string(), "--timeout", &limit];
        let mut process = place.spawn(&argv)?;
        process.wait_for_line("connected", PATIENCE)?;
        Ok(Self { process, lines: 0 })
    }

    /// Sends a line and waits for its echo.
    pub fn says(&mut self, line: &str) -> Result<()> {
        self.lines += 1;
        self.process.write_line(line)?;
        self.process.wait_for_line(&format!("\"number\":{}", self.lines), PATIENCE)?;
        Ok(())
    }

    /// Waits until the connection ends by itself; how.
    pub fn ends(mut self) -> Result<String> {
        let output = self.process.wait(PATIENCE)?;
        Ok(last(&output)?["outcome"].as_str().unwrap_or_default().to_owned())
    }

    /// Closes it; fails unless it was well to its end.
    pub fn close(mut self) -> Result<()> {
        self.process.close_stdin();
        self.process.wait(PATIENCE)?.success()?;
        Ok(())
    }
}

fn last(output: &Output) -> Result<Value> {
    let line = output.stdout.lines().last().with_context(|| format!("no report: {output}"))?;
    serde_json::from_str(line).with_context(|| format!("no JSON: {output}"))
}
