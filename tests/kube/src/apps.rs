//! Pods that talk to each other, and what they saw.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_lab::wait_until;
use serde_json::{Value, json};

use crate::Kubectl;
use crate::mesh::Mesh;

/// The image of the tests' servers and clients.
const IMAGE: &str = concat!("mesh.dev/mesh-traffic:", env!("CARGO_PKG_VERSION"));
/// How soon what was applied is in force, on a machine that is busy otherwise.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Where every pod says whom accept() showed.
pub const PORT: u16 = 7003;
/// Where its Service does.
pub const SERVICE_PORT: u16 = 80;

/// A namespace of a test's own; it goes with this.
#[derive(Debug)]
pub struct Apps {
    kubectl: Kubectl,
    namespace: String,
}

impl Apps {
    /// Makes the namespace, after one of its name that is going has gone.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn new(kubectl: &Kubectl, namespace: &str) -> Result<Self> {
        kubectl.run(&["wait", "--for=delete", &format!("namespace/{namespace}"), "--timeout=60s"])?;
        kubectl.run(&["create", "namespace", namespace])?;
        Ok(Self { kubectl: kubectl.clone(), namespace: namespace.to_owned() })
    }

    /// Makes the namespace, joined, with `cart` serving HTTP on one node and `client` on the other, both enrolled.
    ///
    /// # Errors
    /// When any of it does not come about.
    pub fn cart_and_client(mesh: &Mesh, kubectl: &Kubectl, namespace: &str) -> Result<Self> {
        let apps = Self::new(kubectl, namespace)?;
        apps.label("mesh.dev/join=enabled")?;
        apps.deploy_http("cart", "node-b")?;
        apps.deploy("client", "node-a")?;
        mesh.wait_enrolled("node-a", 1)?;
        mesh.wait_enrolled("node-b", 1)?;
        Ok(apps)
    }

    /// Puts a label on the namespace, or takes it off (`KEY-`).
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn label(&self, label: &str) -> Result<()> {
        self.kubectl.run(&["label", "--overwrite", "namespace", &self.namespace, label]).map(drop)
    }

    /// Runs a pod under a service account of its name, with a Service of its name; waits until it is ready.
    ///
    /// # Errors
    /// With what the pod's events say.
    pub fn deploy(&self, name: &str, node: &str) -> Result<()> {
        let listen = format!("[::]:{PORT}");
        self.deploy_with(name, node, &["report-peer", "--listen", &listen], "")
    }

    fn deploy_with(&self, name: &str, node: &str, arguments: &[&str], port_name: &str) -> Result<()> {
        self.create(name, "nodeName", &json!(node), arguments, port_name)?;
        self.wait_ready(name)
    }

    /// Asks for a pod as [`Apps::deploy`] makes it, which the scheduler is to put on a node, and waits for nothing.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn schedule(&self, name: &str, node: &str) -> Result<()> {
        let (listen, selector) = (format!("[::]:{PORT}"), json!({"kubernetes.io/hostname": node}));
        self.create(name, "nodeSelector", &selector, &["report-peer", "--listen", &listen], "")
    }

    /// Why the scheduler finds no node for a pod; none while it has said nothing, or has found one.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn why_pending(&self, name: &str) -> Result<Option<String>> {
        let pod = self.kubectl.get(&["-n", &self.namespace, "pod", name])?;
        let conditions = pod["status"]["conditions"].as_array();
        let scheduled = conditions.into_iter().flatten().find(|condition| condition["type"] == "PodScheduled");
        let refused = scheduled.filter(|condition| condition["status"] == "False");
        Ok(refused.and_then(|condition| condition["message"].as_str()).map(str::to_owned))
    }

    /// Where it runs is the field of the pod's spec.
    fn create(&self, name: &str, place: &str, at: &Value, arguments: &[&str], port_name: &str) -> Result<()> {
        let metadata = json!({"name": name, "namespace": self.namespace, "labels": {"app": name}});
        let items = json!([
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
            {"apiVersion": "v1", "kind": "Service", "metadata": metadata,
             "spec": {"selector": {"app": name}, "ports": [{"name": port_name, "port": SERVICE_PORT, "targetPort": PORT}]}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {
                place: at,
                "serviceAccountName": name,
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "main",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "args": arguments,
                    "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                }],
            }},
        ]);
        self.kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).map(drop)
    }

    /// Asks for a pod whose only container connects at once, once, and ends. Its account is `client`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn start_client(&self, name: &str, node: &str, to: SocketAddr) -> Result<()> {
        let metadata = json!({"name": name, "namespace": self.namespace, "labels": {"app": name}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {
            "nodeName": node,
            "serviceAccountName": "client",
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "args": client(&to.to_string())[1..],
            }],
        }});
        self.kubectl.apply(&pod.to_string()).map(drop)
    }

    /// Waits until such a pod has ended; what came of its connection.
    ///
    /// # Errors
    /// With what the pod's events say.
    pub fn client_ended(&self, name: &str) -> Result<Answer> {
        wait_until(&format!("{name} to end"), PATIENCE, || {
            let pod = self.kubectl.get(&["-n", &self.namespace, "pod", name])?;
            let phase = pod["status"]["phase"].as_str();
            Ok(phase.is_some_and(|phase| phase == "Succeeded" || phase == "Failed").then_some(()))
        })
        .with_context(|| self.events(name).unwrap_or_else(|error| error.to_string()))?;
        let logs = self.kubectl.command(&["-n", &self.namespace, "logs", name]).output().context("starting kubectl")?;
        Answer::read(&logs)
    }

    /// What happened to a pod, in words.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn events(&self, name: &str) -> Result<String> {
        let of = format!("involvedObject.name={name}");
        self.kubectl.run(&["-n", &self.namespace, "get", "events", "--field-selector", &of])
    }

    /// Waits until a pod is ready.
    ///
    /// # Errors
    /// With what the pod's events say.
    pub fn wait_ready(&self, name: &str) -> Result<()> {
        let ready = ["-n", &self.namespace, "wait", "--for=condition=Ready", "--timeout=60s", &format!("pod/{name}")];
        self.kubectl.run(&ready).map(drop).with_context(|| {
            let events = self.kubectl.run(&["-n", &self.namespace, "get", "events"]);
            events.unwrap_or_else(|error| error.to_string())
        })
    }

    /// Runs a pod that serves HTTP and says who it is, with a Service of its name; waits until it is ready.
    ///
    /// # Errors
    /// With what the pod's events say.
    pub fn deploy_http(&self, name: &str, node: &str) -> Result<()> {
        let listen = format!("[::]:{PORT}");
        self.deploy_with(name, node, &["http", "--listen", &listen, "--name", name], "http")
    }

    /// Asks for a path by HTTP from a pod; what came back, head and body.
    ///
    /// # Errors
    /// When the pod cannot run it.
    pub fn get(&self, pod: &str, to: SocketAddr, path: &str) -> Result<String> {
        let (to, message) = (to.to_string(), format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"));
        let client = ["mesh-traffic", "connect", "--to", &to, "--timeout", "10", "--whole", "--message", &message];
        let words = [&["-n", self.namespace.as_str(), "exec", pod, "--"], &client[..]].concat();
        let output = self.kubectl.command(&words).output().context("starting kubectl")?;
        let said: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok(said["text"].as_str().unwrap_or_default().to_owned())
    }

    /// A pod's address, at its port.
    ///
    /// # Errors
    /// When it has none.
    pub fn pod(&self, name: &str) -> Result<SocketAddr> {
        self.address(&["pod", name], "/status/podIP", PORT)
    }

    /// A pod's Service.
    ///
    /// # Errors
    /// When there is none.
    pub fn service(&self, name: &str) -> Result<SocketAddr> {
        self.address(&["service", name], "/spec/clusterIP", SERVICE_PORT)
    }

    fn address(&self, object: &[&str], pointer: &str, port: u16) -> Result<SocketAddr> {
        let object = self.kubectl.get(&[&["-n", self.namespace.as_str()], object].concat())?;
        let text =
            object.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer} in {object}"))?;
        Ok(SocketAddr::new(text.parse()?, port))
    }

    /// Connects from a pod and reads what the server says; how it ended: `ok`, `reset`, `refused` ...
    ///
    /// # Errors
    /// When the pod cannot run it.
    pub fn connect(&self, pod: &str, to: SocketAddr) -> Result<Answer> {
        let to = to.to_string();
        let client = client(&to);
        let words = [&["-n", self.namespace.as_str(), "exec", pod, "--"], &client[..]].concat();
        // It ends with another code where it does not end well, which is an answer as well.
        let output = self.kubectl.command(&words).output().context("starting kubectl")?;
        Answer::read(&output).with_context(|| format!("{pod} -> {to}"))
    }

    /// Connects from a pod a hundred times a second, one connection after the other, until `work` is done; how many ended how.
    ///
    /// # Errors
    /// When the pod cannot run it, and what `work` says.
    pub fn connect_during<T>(
        &self,
        pod: &str,
        to: SocketAddr,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(BTreeMap<String, u64>, T)> {
        let to = to.to_string();
        let exec = ["-n", self.namespace.as_str(), "exec", "-i", pod, "--"];
        let words = [&exec[..], &client(&to), &["--every", "10"]].concat();
        let mut dialling = self.kubectl.command(&words);
        let mut dialling = dialling
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting kubectl")?;
        let done = work();
        drop(dialling.stdin.take());
        let output = dialling.wait_with_output().context("waiting for kubectl")?;
        let done = done?;
        let error = || format!("{pod} -> {to}: {}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout).with_context(error)?;
        Ok((serde_json::from_value(said["ended"].clone()).with_context(error)?, done))
    }

    /// Waits until connections from a pod end in `outcome`.
    ///
    /// # Errors
    /// With how the last one ended, when [`PATIENCE`] has passed.
    pub fn ends(&self, pod: &str, to: SocketAddr, outcome: &str) -> Result<()> {
        let mut last = String::new();
        wait_until(&format!("{pod} -> {to} to end in {outcome}"), PATIENCE, || {
            last = self.connect(pod, to)?.outcome;
            Ok((last == outcome).then_some(()))
        })
        .with_context(|| format!("it ended in {last}"))
    }

    /// Applies a policy of Istio's security API to the namespace, under the name `test`.
    ///
    /// # Errors
    /// With what the API server says against it.
    pub fn policy(&self, kind: &str, spec: &str) -> Result<()> {
        let header = format!(
            "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: test, namespace: {}}}",
            self.namespace
        );
        self.kubectl.apply(&format!("{header}\nspec: {spec}\n")).map(drop)
    }

    /// The id of a pod's container, as containerd knows it.
    ///
    /// # Errors
    /// When it has none.
    pub fn container(&self, pod: &str) -> Result<String> {
        let object = self.kubectl.get(&["-n", &self.namespace, "pod", pod])?;
        let id = object.pointer("/status/containerStatuses/0/containerID").and_then(Value::as_str);
        let id = id.and_then(|id| id.strip_prefix("containerd://"));
        id.map(str::to_owned).with_context(|| format!("{pod} has no container"))
    }
}

impl Drop for Apps {
    fn drop(&mut self) {
        // A namespace that stays disturbs no other.
        let _ = self.kubectl.run(&["delete", "namespace", &self.namespace, "--wait=false", "--ignore-not-found"]);
    }
}

/// The client that connects and reads what the server says.
#[must_use]
pub fn client(to: &str) -> [&str; 8] {
    ["mesh-traffic", "connect", "--to", to, "--timeout", "10", "--message", ""]
}

impl Answer {
    /// Reads what [`client`] printed.
    ///
    /// # Errors
    /// When it printed no answer.
    pub fn read(output: &Output) -> Result<Self> {
        let error = || String::from_utf8_lossy(&output.stderr).into_owned();
        let said: Value = serde_json::from_slice(&output.stdout).with_context(error)?;
        let seen: Value = serde_json::from_str(said["text"].as_str().unwrap_or_default()).unwrap_or_default();
        Ok(Self {
            outcome: said["outcome"].as_str().unwrap_or_default().to_owned(),
            client: seen["peer"].as_str().and_then(|peer| peer.parse().ok()),
        })
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `ok` where the server's word came.
    pub outcome: String,
    /// The client's address as accept() showed it to the server.
    pub client: Option<SocketAddr>,
}
