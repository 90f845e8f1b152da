//! A Prometheus that scrapes every node's daemon.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use mesh_lab::{Node, Place as _, Pod, Process, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Mesh, NODES, PATIENCE};

/// Where it listens on its node, loopback alone.
const ADDRESS: &str = "127.0.0.1:9090";
/// The daemons' port for it.
const METRICS_PORT: u16 = 15020;

/// A running Prometheus. It ends when dropped.
pub struct Prometheus {
    _process: Process,
    node: Node,
    /// Its data and its configuration.
    _dir: TempDir,
}

/// The folder of the chart that has `name`.
pub fn chart_files(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/mesh/files").join(name)
}

impl Prometheus {
    /// Starts Debian's Prometheus on the first node, with these rules, and waits until it has scraped every daemon twice.
    pub fn start(mesh: &Mesh, rules: &[(&str, String)]) -> Result<Self> {
        Self::start_with(mesh, rules, &[])
    }

    /// The same, which scrapes these waypoints and gateways, too.
    pub fn start_with(mesh: &Mesh, rules: &[(&str, String)], proxies: &[&Pod]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        for (name, text) in rules {
            std::fs::write(dir.path().join(name), text).with_context(|| format!("writing {name}"))?;
        }
        let config = dir.path().join("prometheus.yml");
        std::fs::write(&config, configuration(mesh, rules, proxies)?)?;
        let node = mesh.lab.node(NODES[0])?;
        let (config, data) = (config.display().to_string(), dir.path().join("data").display().to_string());
        let argv = [
            "prometheus",
            "--config.file",
            &config,
            "--storage.tsdb.path",
            &data,
            "--web.listen-address",
            ADDRESS,
            "--log.level",
            "warn",
        ];
        let process = node.spawn(&argv)?;
        let started = Self { _process: process, node, _dir: dir };
        started.wait_for(
            "every daemon and proxy to be scraped twice",
            &format!("count(sum_over_time(up[1h]) >= 2) == {}", NODES.len() + proxies.len()),
            |found| !found.is_empty(),
        )?;
        Ok(started)
    }

    /// What an expression is now: the result's items.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        self.ask("query", &[("query", expression)])
    }

    /// What an expression was each second of the last `seconds`.
    pub fn range(&self, expression: &str, seconds: u64) -> Result<Vec<Value>> {
        let end = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let (start, end) = ((end - seconds).to_string(), end.to_string());
        self.ask("query_range", &[("query", expression), ("start", &start), ("end", &end), ("step", "1")])
    }

    /// The values that a label has in the series that a selector selects, as a dashboard's variable asks for them.
    pub fn label_values(&self, selector: &str, label: &str) -> Result<Vec<String>> {
        let found = self.ask(&format!("label/{label}/values"), &[("match[]", selector)])?;
        Ok(found.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect())
    }

    /// Waits until an expression's result is as it should be.
    pub fn wait_for(&self, what: &str, expression: &str, good: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
        wait_until(what, PATIENCE, || {
            // It may not listen yet.
            Ok(self.query(expression).ok().filter(|found| good(found)))
        })
        .with_context(|| format!("{expression}: {:?}", self.query(expression)))
    }

    /// Waits until an alert fires, or until it does not.
    pub fn wait_alert(&self, name: &str, firing: bool) -> Result<Vec<Value>> {
        let what = format!("{name} to {}", if firing { "fire" } else { "clear" });
        let expression = format!("ALERTS{{alertname=\"{name}\",alertstate=\"firing\"}}");
        self.wait_for(&what, &expression, |found| found.is_empty() != firing)
    }

    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Vec<Value>> {
        let url = format!("http://{ADDRESS}/api/v1/{path}");
        let mut argv = vec!["curl", "--silent", "--show-error", "--max-time", "10", "--get", &url];
        let pairs: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        for pair in &pairs {
            argv.extend(["--data-urlencode", pair]);
        }
        let output = self.node.exec(&argv)?;
        output.success()?;
        let answer = output.json()?;
        if answer["status"] != "success" {
            bail!("{parameters:?}: {answer}");
        }
        let data = &answer["data"];
        let items = data.as_array().or_else(|| data["result"].as_array());
        Ok(items.with_context(|| format!("{parameters:?}: no result in {answer}"))?.clone())
    }
}

/// Scrapes each second, so that a test waits for no more.
fn configuration(mesh: &Mesh, rules: &[(&str, String)], proxies: &[&Pod]) -> Result<String> {
    let mut text =
        String::from("global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files:\n");
    for (name, _) in rules {
        writeln!(text, "  - {name}")?;
    }
    text += "scrape_configs:\n  - job_name: mesh-node\n    static_configs:\n";
    for node in NODES {
        let address = mesh.lab.node(node)?.ipv4();
        writeln!(text, "      - targets: ['{address}:{METRICS_PORT}']\n        labels: {{node: {node}}}")?;
    }
    text += "  - job_name: mesh-waypoint\n    static_configs:\n";
    for proxy in proxies {
        writeln!(text, "      - targets: ['{}:{METRICS_PORT}']", proxy.ipv4())?;
    }
    Ok(text)
}
