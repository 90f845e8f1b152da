//! HTTP/1.1 GETs of 1 KB by wrk, from the client's pod to nginx in the server's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_lab::Place as _;
use serde::Deserialize;

use super::{Reading, cpu_readings, reading};
use crate::sampling::idle;
use crate::stage::{App, Stage};
use crate::subjects::Subject;

/// Prints wrk's own numbers, unrounded, at the end. wrk calls nothing else of it, so it costs nothing before.
pub(crate) const SCRIPT: &str = r#"
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('{"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"failed":%d}\n', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"#;
/// Failed requests for each that was answered, above which the rest says nothing.
const TOLERATED: f64 = 0.001;

/// How requests use connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    connections: u32,
    anew: bool,
}

impl Load {
    /// Connections that stay.
    pub(super) const fn kept(connections: u32) -> Self {
        Self { connections, anew: false }
    }

    /// A new connection for each request.
    pub(super) const fn anew(connections: u32) -> Self {
        Self { connections, anew: true }
    }
}

/// What the script prints.
#[derive(Debug, Deserialize)]
pub(crate) struct Summary {
    pub(crate) requests: f64,
    pub(crate) microseconds: f64,
    p50: f64,
    pub(crate) p99: f64,
    failed: f64,
}

pub(super) fn measure(stage: &mut Stage, subject: Subject, load: Load, seconds: u32) -> Result<Vec<Reading>> {
    stage.enter(subject)?;
    let script = stage.lab.home().join("wrk.lua");
    std::fs::write(&script, SCRIPT).context("writing wrk's script")?;
    let url = format!("http://{}/", stage.target(subject, App::Http));
    let (script, connections) = (script.display().to_string(), load.connections.to_string());
    let (threads, duration) = (load.connections.min(2).to_string(), format!("{seconds}s"));
    let mut argv = vec!["wrk", "-t", &threads, "-c", &connections, "-d", &duration, "-s", &script];
    if load.anew {
        argv.extend(["-H", "Connection: close"]);
    }
    argv.push(&url);
    let (meter, sleeps) = (stage.meter(subject)?, idle::sleeps());
    let output = stage.client.exec_within(Duration::from_secs(u64::from(seconds) + 30), &argv)?;
    let (used, slept) = (meter.used()?, idle::sleeps().zip(sleeps).map(|(end, start)| end - start));
    let summary = summary(output.success()?).with_context(|| format!("wrk said: {output}"))?;
    let mut readings = vec![reading("requests", "1/s", summary.requests / summary.microseconds * 1e6)];
    if !load.anew {
        // wrk's clock starts after connect(), which says different things with and without a proxy.
        readings.extend([reading("p50", "us", summary.p50), reading("p99", "us", summary.p99)]);
    }
    readings.extend(cpu_readings(&used, summary.requests, "us/request", 1.0));
    readings.extend(slept.map(|slept| reading("core-sleeps", "1/request", slept as f64 / summary.requests)));
    Ok(readings)
}

pub(crate) fn summary(printed: &str) -> Result<Summary> {
    let line = printed.lines().find(|line| line.starts_with('{')).context("no summary")?;
    let summary: Summary = serde_json::from_str(line).with_context(|| line.to_owned())?;
    ensure!(summary.requests > 0.0 && summary.microseconds > 0.0, "no request was answered");
    ensure!(summary.failed <= summary.requests * TOLERATED, "{} requests failed", summary.failed);
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_found_among_what_wrk_prints() {
        let text = "Running 1s test\n{\"requests\":10,\"microseconds\":1000000,\"p50\":5,\"p99\":9,\"failed\":0}\n  10 requests\n";
        assert_eq!(summary(text).expect("a summary").p99, 9.0);
    }

    #[test]
    fn failures_are_no_figures() {
        let with = |requests, failed| {
            format!("{{\"requests\":{requests},\"microseconds\":1,\"p50\":1,\"p99\":1,\"failed\":{failed}}}")
        };
        assert!(summary(&with(0, 0)).is_err());
        assert!(summary(&with(100, 1)).is_err());
        assert!(summary(&with(10_000, 1)).is_ok());
        assert!(summary("").is_err());
    }
}
