//! GETs by wrk over HTTP/1.1, and by h2load over HTTP/2 GETs and gRPC's calls, from the client's pod.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_lab::Place as _;

use super::stage::{Front, Stage};
use crate::cases::http::{SCRIPT, summary};

/// Requests under way on one HTTP/2 connection.
const STREAMS: &str = "10";

/// A unary call, which nobody looks at: a message of five octets behind its prefix.
pub(super) const CALL: &[u8] = b"\0\0\0\0\x05hello";

/// How requests are sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    connections: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http1,
    Http2,
    Grpc,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) requests: f64,
    pub(super) seconds: f64,
    /// In microseconds; h2load does not say.
    pub(super) p99: Option<f64>,
}

impl Load {
    pub(super) const fn http1(connections: u32) -> Self {
        Self { connections, kind: Kind::Http1 }
    }

    pub(super) const fn http2(connections: u32) -> Self {
        Self { connections, kind: Kind::Http2 }
    }

    /// Unary calls.
    pub(super) const fn grpc(connections: u32) -> Self {
        Self { connections, kind: Kind::Grpc }
    }

    /// Whether the server can be asked so with nothing between.
    pub(super) fn reaches_server(self, front: Front) -> bool {
        match self.kind {
            Kind::Http1 => front == Front::OneRoute,
            Kind::Http2 => false,
            Kind::Grpc => true,
        }
    }

    pub(super) fn run(self, stage: &Stage, url: &str, seconds: u32) -> Result<Done> {
        let (connections, limit) = (self.connections.to_string(), Duration::from_secs(u64::from(seconds) + 30));
        if self.kind != Kind::Http1 {
            let (duration, call) = (seconds.to_string(), stage.call().display().to_string());
            let mut argv =
                vec!["taskset", "-c", "1", "h2load", "-t", "1", "-c", &connections, "-m", STREAMS, "-D", &duration];
            if self.kind == Kind::Grpc {
                argv.extend(["-d", &call, "-H", "content-type: application/grpc", "-H", "te: trailers"]);
            }
            argv.push(url);
            let output = stage.pod.exec_within(limit, &argv)?;
            return of_h2load(output.success()?, f64::from(seconds)).with_context(|| format!("h2load said: {output}"));
        }
        let script = stage.lab.home().join("wrk.lua");
        std::fs::write(&script, SCRIPT).context("writing wrk's script")?;
        let (script, duration) = (script.display().to_string(), format!("{seconds}s"));
        let wrk = ["taskset", "-c", "1", "wrk", "-t", "1", "-c", &connections, "-d", &duration, "-s", &script, url];
        let output = stage.pod.exec_within(limit, &wrk)?;
        let summary = summary(output.success()?).with_context(|| format!("wrk said: {output}"))?;
        Ok(Done { requests: summary.requests, seconds: summary.microseconds / 1e6, p99: Some(summary.p99) })
    }
}

/// `requests: 50 total, 50 started, 50 done, 50 succeeded, 0 failed, 0 errored, 0 timeout`
fn of_h2load(printed: &str, seconds: f64) -> Result<Done> {
    let line = printed.lines().find_map(|line| line.strip_prefix("requests: ")).context("no line of requests")?;
    let count =
        |what: &str| -> Option<f64> { line.split(", ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok()) };
    let (succeeded, failed) = (count("succeeded").context("succeeded")?, count("failed").context("failed")?);
    ensure!(succeeded > 0.0 && failed == 0.0, "{failed} requests failed, {succeeded} succeeded");
    Ok(Done { requests: succeeded, seconds, p99: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_h2load_prints_is_read() {
        let text = "finished in 2.00s, 25.00 req/s\nrequests: 50 total, 50 started, 50 done, 50 succeeded, 0 failed, 0 errored\n";
        assert_eq!(of_h2load(text, 2.0).expect("a result").requests, 50.0);
        assert!(of_h2load(&text.replace("0 failed", "1 failed"), 2.0).is_err());
        assert!(of_h2load("", 2.0).is_err());
    }
}
