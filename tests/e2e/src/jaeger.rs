//! A real Jaeger on a node.

use anyhow::{Context as _, Result};
use mesh_lab::{Node, Place as _, Process, wait_until};
use serde_json::Value;

use crate::{Mesh, PATIENCE, go};

/// As xtask builds it.
const VERSION: &str = "v1.76.0";
/// Where it takes spans by gRPC.
const OTLP_PORT: u16 = 4_317;
/// Where it is asked.
const QUERY: &str = "http://127.0.0.1:16686/api/traces";

/// A running Jaeger, which keeps traces in memory. It ends when dropped.
pub struct Jaeger {
    node: Node,
    _process: Process,
}

impl Jaeger {
    /// Starts it on a node, and waits until it answers.
    pub fn start(mesh: &Mesh, node: &str) -> Result<Self> {
        let node = mesh.lab.node(node)?;
        let program = go::program("jaeger", VERSION)?;
        let process = node.spawn(&["env", "COLLECTOR_OTLP_ENABLED=true", &program, "--log-level=error"])?;
        let started = Self { node, _process: process };
        wait_until("Jaeger to answer", PATIENCE, || Ok(started.ask("?service=none").is_ok().then_some(())))?;
        Ok(started)
    }

    /// Where spans are sent to, from any node or pod.
    pub fn otlp(&self) -> String {
        format!("http://{}:{OTLP_PORT}", self.node.ipv4())
    }

    /// The traces with a span of `service` that has this tag, each as its spans.
    pub fn traces(&self, service: &str, tag: (&str, &str)) -> Result<Vec<Vec<Value>>> {
        let tags = format!("%7B%22{}%22:%22{}%22%7D", tag.0, tag.1);
        let answer = self.ask(&format!("?service={service}&tags={tags}&limit=20"))?;
        let traces = answer["data"].as_array().context("Jaeger's answer has no traces")?;
        Ok(traces.iter().map(|trace| trace["spans"].as_array().cloned().unwrap_or_default()).collect())
    }

    fn ask(&self, query: &str) -> Result<Value> {
        let argv = ["curl", "--silent", "--fail", "--globoff", "--max-time", "10", &format!("{QUERY}{query}")];
        let output = self.node.exec(&argv)?;
        output.success()?;
        output.json()
    }
}
