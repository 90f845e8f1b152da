//! Bulk data: iperf3, 128 KB writes, IPv4, from the client's pod to the server's.

use std::time::Duration;

use anyhow::{Context, Result};
use mesh_lab::Place as _;
use serde_json::Value;

use super::{Reading, cpu_readings, reading};
use crate::stage::{App, Stage};
use crate::subjects::Subject;

const GIGABYTE: f64 = 1e9;

pub(super) fn measure(stage: &mut Stage, subject: Subject, streams: u32, seconds: u32) -> Result<Vec<Reading>> {
    stage.enter(subject)?;
    let target = stage.target(subject, App::Iperf);
    let meter = stage.meter(subject)?;
    let argv = [
        "iperf3",
        "--json",
        "--version4",
        "--length",
        "128K",
        "--client",
        &target.ip().to_string(),
        "--port",
        &target.port().to_string(),
        "--parallel",
        &streams.to_string(),
        "--time",
        &seconds.to_string(),
    ];
    let output = stage.client.exec_within(Duration::from_secs(u64::from(seconds) + 30), &argv)?;
    let used = meter.used()?;
    let (bits_per_second, bytes) = received(&output.json()?).with_context(|| format!("iperf3 said: {output}"))?;
    let mut readings = vec![reading("throughput", "Gb/s", bits_per_second / 1e9)];
    readings.extend(cpu_readings(&used, bytes / GIGABYTE, "s/GB", 1e-6));
    Ok(readings)
}

/// What arrived: bits a second, and bytes.
fn received(report: &Value) -> Result<(f64, f64)> {
    if let Some(error) = report["error"].as_str() {
        anyhow::bail!("{error}");
    }
    let sum = &report["end"]["sum_received"];
    let field = |name: &str| {
        sum[name].as_f64().filter(|value| *value > 0.0).with_context(|| format!("nothing in sum_received.{name}"))
    };
    Ok((field("bits_per_second")?, field("bytes")?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_arrived_counts() {
        let report = json!({"end": {"sum_sent": {"bits_per_second": 9e9, "bytes": 9e9}, "sum_received": {"bits_per_second": 8e9, "bytes": 2e9}}});
        assert_eq!(received(&report).expect("complete"), (8e9, 2e9));
    }

    #[test]
    fn a_failure_is_no_figure() {
        assert_eq!(
            received(&json!({"error": "unable to connect"})).expect_err("failed").to_string(),
            "unable to connect"
        );
        assert!(received(&json!({"end": {"sum_received": {"bits_per_second": 0, "bytes": 0}}})).is_err());
    }
}
