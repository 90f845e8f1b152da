//! The mesh on a cluster, as a person installs it and looks into it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mesh_lab::wait_until;
use serde_json::Value;

use crate::apps::PATIENCE;
use crate::{Cluster, Kubectl};

/// Where the mesh is installed.
pub const NAMESPACE: &str = "mesh-system";
/// The chart, from a test's directory.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/mesh");
/// The port of a daemon's metrics.
const METRICS: u16 = 15020;
/// How long a daemon may take to tell its metrics.
const SCRAPE: Duration = Duration::from_secs(5);

/// The mesh on one cluster.
#[derive(Debug, Clone)]
pub struct Mesh {
    helm: PathBuf,
    /// kubectl on its cluster.
    pub kubectl: Kubectl,
}

/// The mesh while it is installed; uninstalls it when a test ends, however it does.
#[derive(Debug)]
pub struct Installed(Mesh);

impl Deref for Installed {
    type Target = Mesh;

    fn deref(&self) -> &Mesh {
        &self.0
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // The test's own outcome is what counts.
        let _ = self.0.uninstall();
    }
}

/// Installs the Gateway API's definitions, as they are published.
///
/// # Errors
/// When the API server does not take them.
pub fn install_gateway_api(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    let definitions = cluster.programs().directory().join("gateway-api").display().to_string();
    kubectl.run(&["apply", "--server-side", "-f", &definitions])?;
    let established =
        ["wait", "--for=condition=Established", "--timeout=30s", "crd/gateways.gateway.networking.k8s.io"];
    kubectl.run(&established).map(drop)
}

impl Mesh {
    /// Installs it for as long as a test runs.
    ///
    /// # Errors
    /// See [`Mesh::install`].
    pub fn installed(cluster: &Cluster, values: &[&str]) -> Result<Installed> {
        let installed = Installed(Self::on(cluster));
        installed.install(values)?;
        Ok(installed)
    }

    /// Waits until a node has enrolled so many pods.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_enrolled(&self, node: &str, pods: usize) -> Result<()> {
        wait_until(&format!("{pods} pods to be enrolled on {node}"), PATIENCE, || {
            Ok((self.ctl(node, &["status"])?["pods"]["enrolled"] == pods).then_some(()))
        })
    }

    /// The mesh on a cluster, installed or not.
    #[must_use]
    pub fn on(cluster: &Cluster) -> Self {
        Self { helm: cluster.programs().path("helm"), kubectl: cluster.kubectl() }
    }

    /// Installs or upgrades it, and waits until it is ready.
    ///
    /// # Errors
    /// With what helm says, and the pods' logs.
    pub fn install(&self, values: &[&str]) -> Result<()> {
        let mut arguments =
            vec!["upgrade", "--install", "mesh", CHART, "--create-namespace", "--wait", "--timeout=90s"];
        arguments.extend(values.iter().flat_map(|value| ["--set", value]));
        self.helm(&arguments).with_context(|| self.logs())?;
        // Helm is content where a rolling update may leave one node without its daemon.
        let everywhere = ["-n", NAMESPACE, "rollout", "status", "daemonset/mesh-node", "--timeout=60s"];
        self.kubectl.run(&everywhere).map(drop).with_context(|| self.logs())
    }

    /// What the chart says with these values, without a cluster.
    ///
    /// # Errors
    /// When it does not take them.
    pub fn template(&self, values: &[&str]) -> Result<String> {
        let mut arguments = vec!["template", "mesh", CHART];
        arguments.extend(values.iter().flat_map(|value| ["--set", value]));
        self.helm(&arguments)
    }

    /// Uninstalls it, and waits until its pods are gone.
    ///
    /// # Errors
    /// With what helm says.
    pub fn uninstall(&self) -> Result<()> {
        self.helm(&["uninstall", "mesh", "--ignore-not-found", "--wait", "--timeout=60s"])?;
        let gone =
            ["-n", NAMESPACE, "wait", "--for=delete", "--timeout=60s", "pod", "-l", "app.kubernetes.io/part-of=mesh"];
        self.kubectl.run(&gone).map(drop)
    }

    /// Runs helm in the mesh's namespace.
    ///
    /// # Errors
    /// With what it says when it fails.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.helm);
        command.args(arguments).args(["--namespace", NAMESPACE]).env("KUBECONFIG", self.kubectl.kubeconfig());
        let output = command.output().context("starting helm")?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "`helm {}`: {}", arguments.join(" "), stderr.trim());
        Ok(stdout.into_owned())
    }

    /// The pod of a node's daemon.
    ///
    /// # Errors
    /// When there is not exactly one that is ready.
    pub fn daemon(&self, node: &str) -> Result<String> {
        let pods = self.kubectl.get(&["-n", NAMESPACE, "pods", "-l", "app.kubernetes.io/name=mesh-node"])?;
        let on_node = |pod: &&Value| pod["spec"]["nodeName"] == node && pod["metadata"]["deletionTimestamp"].is_null();
        let found: Vec<_> = pods["items"].as_array().into_iter().flatten().filter(on_node).collect();
        match found[..] {
            [pod] => Ok(pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()),
            _ => bail!("{node} has {} daemons", found.len()),
        }
    }

    /// What `mesh-ctl` says on a node, whatever its exit code says of it.
    ///
    /// # Errors
    /// When it says no JSON.
    pub fn ctl(&self, node: &str, arguments: &[&str]) -> Result<Value> {
        let daemon = self.daemon(node)?;
        let words = [&["-n", NAMESPACE, "exec", &daemon, "--", "mesh-ctl"], arguments, &["-o", "json"]].concat();
        let output = self.kubectl.command(&words).output().context("starting kubectl")?;
        let error = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).with_context(|| format!("mesh-ctl {}: {error}", arguments.join(" ")))
    }

    /// A node's metrics, as Prometheus reads them.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn metrics(&self, node: &str) -> Result<String> {
        let object = self.kubectl.get(&["node", node])?;
        let addresses = object["status"]["addresses"].as_array();
        let internal = addresses.into_iter().flatten().find(|address| address["type"] == "InternalIP");
        let address = internal.and_then(|address| address["address"].as_str()).context("the node has no address")?;
        let mut stream = TcpStream::connect((address, METRICS)).with_context(|| format!("{node}'s metrics"))?;
        stream.set_read_timeout(Some(SCRAPE))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: {node}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{node}'s metrics: {answer}");
        Ok(answer)
    }

    /// What the mesh's pods said last, for a person who has to find out why.
    #[must_use]
    pub fn logs(&self) -> String {
        let said = |arguments: &[&str]| self.kubectl.run(arguments).unwrap_or_else(|error| error.to_string());
        let labels = "app.kubernetes.io/part-of=mesh";
        let logs = said(&["-n", NAMESPACE, "logs", "-l", labels, "--prefix", "--tail=20"]);
        let pods = said(&["-n", NAMESPACE, "get", "pods", "-o", "wide"]);
        format!("{pods}\n{}\n{logs}", said(&["-n", NAMESPACE, "get", "events"]))
    }
}
