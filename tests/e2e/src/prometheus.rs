//! A Prometheus that scrapes every node's daemon.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use mesh_lab::{Node, Place as _, Pod, Process, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Mesh, NODES, PATIENCE};

/// Where it listens on its node, loopback alone.
const ADDRESS: &str = "127.0.0.1:9090";
/// The daemons' port for it.
const METRICS_PORT: u16 = 15020;

/// mesh-control's.
const CONTROL_PORT: u16 = 15014;

/// What is scraped beside the daemons.
#[derive(Default)]
pub struct Scraped<'a> {
    /// Waypoints and gateways.
    pub proxies: &'a [&'a Pod],
    /// Replicas of mesh-control: their pods' names and addresses.
    pub controls: &'a [(&'a str, IpAddr)],
}

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
        Self::start_with(mesh, rules, &Scraped::default())
    }

    /// The same, which scrapes these, too.
    pub fn start_with(mesh: &Mesh, rules: &[(&str, String)], scraped: &Scraped<'_>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        for (name, text) in rules {
            std::fs::write(dir.path().join(name), text).with_context(|| format!("writing {name}"))?;
        }
        let config = dir.path().join("prometheus.yml");
        std::fs::write(&config, configuration(mesh, rules, scraped)?)?;
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
            "every program to be scraped twice",
            &format!(
                "count(sum_over_time(up[1h]) >= 2) == {}",
                NODES.len() + scraped.proxies.len() + scraped.controls.len()
            ),
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

/// The chart's, as it is, but that it is told of each pod what Kubernetes would tell; each second, so that a test waits for no more.
fn configuration(mesh: &Mesh, rules: &[(&str, String)], scraped: &Scraped<'_>) -> Result<String> {
    const DISCOVERY: &str = "  kubernetes_sd_configs: [{role: pod}]";
    let mut text =
        String::from("global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files:\n");
    for (name, _) in rules {
        writeln!(text, "  - {name}")?;
    }
    let nodes = NODES.iter().map(|node| Ok((*node, mesh.lab.node(node)?))).collect::<Result<Vec<_>>>()?;
    let daemons = nodes.iter().map(|(name, node)| {
        let labels = json!({"__meta_kubernetes_pod_label_app_kubernetes_io_name": "mesh-node"});
        discovered(node.ipv4(), None, &format!("mesh-node-{name}"), name, labels)
    });
    let proxies = scraped.proxies.iter().map(|pod| {
        let labels = json!({"__meta_kubernetes_pod_label_gateway_istio_io_managed": "mesh.dev-gateway-controller"});
        discovered(pod.ipv4(), Some(METRICS_PORT), pod.name(), NODES[0], labels)
    });
    let controls = scraped.controls.iter().map(|(name, address)| {
        let labels = json!({"__meta_kubernetes_pod_label_app_kubernetes_io_name": "mesh-control"});
        discovered(*address, Some(CONTROL_PORT), name, NODES[0], labels)
    });
    // Each job discovers all pods, and keeps its own.
    let pods: Vec<Value> = daemons.chain(proxies).chain(controls).collect();
    let shipped = chart_files("prometheus").join("scrape.yaml");
    let shipped = std::fs::read_to_string(&shipped).with_context(|| shipped.display().to_string())?;
    anyhow::ensure!(shipped.matches(DISCOVERY).count() == 3, "three jobs that discover pods: {shipped}");
    text += &shipped.replace(DISCOVERY, &format!("  static_configs: {}", Value::from(pods)));
    Ok(text)
}

/// A pod as Kubernetes' discovery tells of it, by its container's port, or by the container where that lists none.
fn discovered(address: IpAddr, port: Option<u16>, name: &str, node: &str, mut labels: Value) -> Value {
    labels["__meta_kubernetes_pod_ip"] = address.to_string().into();
    labels["__meta_kubernetes_pod_name"] = name.into();
    labels["__meta_kubernetes_pod_node_name"] = node.into();
    labels["__meta_kubernetes_namespace"] = "mesh-system".into();
    labels["__meta_kubernetes_pod_phase"] = "Running".into();
    labels["__meta_kubernetes_pod_container_init"] = "false".into();
    let target = match port {
        Some(port) => {
            labels["__meta_kubernetes_pod_container_port_name"] = "http-metrics".into();
            SocketAddr::new(address, port).to_string()
        }
        None => address.to_string(),
    };
    json!({"targets": [target], "labels": labels})
}
