//! A cluster as a whole: up, down, and what it is made of.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mesh_lab::{Capture, wait_until};
use serde_json::json;

use crate::addresses::pods;
use crate::home::{self, Home, NODES};
use crate::kubectl::Kubectl;
use crate::node::{self, CONTAINERD_SOCKET, PAUSE_IMAGE, Runtime};
use crate::programs::Programs;
use crate::{cgroups, control, dns, network};

/// How long each step of the start may take on a machine that is busy otherwise.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a node's containerd may take to start and to take an image.
const IMPORT: Duration = Duration::from_secs(30);
/// Where nobody listens (RFC 863).
const DISCARD: u16 = 9;
/// Lines of a log that are shown when a step fails.
const SHOWN: usize = 15;

/// A cluster that is up.
#[derive(Debug, Clone)]
pub struct Cluster {
    home: Home,
    programs: Programs,
}

impl Cluster {
    /// Starts it and waits until its nodes are ready; says on standard error how far it is.
    ///
    /// # Errors
    /// With the last lines of the logs; what was started stays, to be looked at, until [`Cluster::down`].
    pub fn up(number: u8) -> Result<Self> {
        let (home, programs) = (Home::of(number), Programs::find()?);
        ensure!(!home.path().exists(), "{} is up, or was left behind: take it down first", home.name());
        let cluster = Self { home, programs };
        cluster.start().with_context(|| cluster.logs())?;
        Ok(cluster)
    }

    /// The cluster of that number, which is up.
    ///
    /// # Errors
    /// When it is not.
    pub fn of(number: u8) -> Result<Self> {
        let (home, programs) = (Home::of(number), Programs::find()?);
        ensure!(home.kubeconfig().exists(), "no cluster is up: `cargo xtask kube up` starts one");
        Ok(Self { home, programs })
    }

    /// The cluster that tests are to use: the number in MESH_KUBE_NUMBER, or 0.
    ///
    /// # Errors
    /// When it is not up.
    pub fn of_tests() -> Result<Self> {
        let number = std::env::var("MESH_KUBE_NUMBER").ok();
        Self::of(number.map_or(Ok(0), |number| number.parse()).context("MESH_KUBE_NUMBER")?)
    }

    /// Kills the API server; everything else goes on without it.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill_api_server(&self) -> Result<()> {
        control::kill(&self.home, control::API_SERVER)
    }

    /// Starts the API server again, and waits until it is ready.
    ///
    /// # Errors
    /// With the last lines of the logs when it does not come back.
    pub fn start_api_server(&self) -> Result<()> {
        control::start_api_server(&self.home, &self.programs)?;
        self.wait_for_api_server().with_context(|| self.logs())
    }

    fn wait_for_api_server(&self) -> Result<()> {
        let kubectl = self.kubectl();
        wait_until("the API server to be ready", PATIENCE, || {
            Ok(kubectl.run(&["get", "--raw", "/readyz"]).ok().map(drop))
        })
    }

    fn start(&self) -> Result<()> {
        let began = Instant::now();
        let step = |what: &str| eprintln!("{:5.1} s  {what}", began.elapsed().as_secs_f32());
        let home = &self.home;
        fs::create_dir_all(home.path().join("logs")).with_context(|| format!("making {}", home.path().display()))?;
        for part in ["control"].into_iter().chain(NODES) {
            cgroups::create(&format!("{}/{part}", home.name()))?;
        }
        network::build(home)?;
        control::credentials(home)?;
        step("network and certificates made");
        control::start_api(home, &self.programs)?;
        for node in NODES {
            node::start(home, node)?;
        }
        let kubectl = self.kubectl();
        self.wait_for_api_server()?;
        step("API server ready");
        control::start_controllers(home, &self.programs)?;
        control::start_balancer(home)?;
        kubectl.apply(&nodes(home).to_string())?;
        self.load_image(&self.programs.directory().join("pause.tar"), PAUSE_IMAGE)?;
        self.load_image(&self.programs.directory().join("coredns.tar"), dns::IMAGE)?;
        kubectl.apply(&dns::manifest())?;
        for node in NODES {
            let arguments = ["wait", "--for=condition=Ready", "--timeout=120s", &format!("node/{node}")];
            kubectl.run(&arguments)?;
        }
        step("nodes ready");
        let account = ["-n", "default", "get", "serviceaccount", "default"];
        wait_until("accounts to be made", PATIENCE, || Ok(kubectl.run(&account).ok()))?;
        step("up");
        Ok(())
    }

    /// Kills and removes everything of the cluster of that number, however far its start came.
    ///
    /// # Errors
    /// When something does not go.
    pub fn down(number: u8) -> Result<()> {
        let home = Home::of(number);
        cgroups::remove(&home.name())?;
        network::remove(&home)?;
        match fs::remove_dir_all(home.path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", home.path().display()))
            }
            _ => Ok(()),
        }
    }

    /// Where its files are.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Kubernetes' programs.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// kubectl with all rights.
    #[must_use]
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.programs.path("kubectl"), &self.home.kubeconfig())
    }

    /// Gives an image (a docker or OCI archive) to every node's containerd.
    ///
    /// # Errors
    /// When containerd does not take it.
    pub fn load_image(&self, archive: &Path, image: &str) -> Result<()> {
        let archive = &archive.canonicalize().with_context(|| format!("there is no image in {}", archive.display()))?;
        for node in NODES {
            let mut said = String::new();
            wait_until(&format!("{node} to take {image}"), IMPORT, || {
                let mut import = self.containerd(node, &["images", "import"])?;
                let output = import.arg(archive).output().context("starting nsenter")?;
                said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Ok(output.status.success().then_some(()))
            })
            .with_context(|| format!("importing {}: {}", archive.display(), said))?;
        }
        Ok(())
    }

    /// A command in a container that runs on a node, by containerd alone: `kubectl exec` needs the API server.
    ///
    /// # Errors
    /// When the node is not up.
    pub fn in_container(&self, node: &str, container: &str, words: &[&str]) -> Result<Command> {
        self.containerd(node, &[&["tasks", "exec", "--exec-id", "test", container], words].concat())
    }

    /// Configures a node's containerd further, and starts it again; what runs goes on. Empty: as it was. Only a containerd 2 heeds it.
    ///
    /// # Errors
    /// When the node is not up.
    pub fn configure_containerd(&self, node: &str, toml: &str) -> Result<()> {
        home::write(&self.home.node(node).join("containerd.d/test.toml"), toml)?;
        let output = self.on_node(node, &["sh", "-c", "kill $(cat /run/containerd.pid)"])?.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut version = self.containerd(node, &["version"])?;
        wait_until(&format!("{node}'s containerd to be there again"), IMPORT, || {
            Ok(version.output()?.status.success().then_some(()))
        })
    }

    /// containerd's own command, for what kubelet has it do.
    fn containerd(&self, node: &str, words: &[&str]) -> Result<Command> {
        let program = Runtime::of(self.index(node)?).program(&self.programs, "ctr");
        let program = program.to_str().context("a path that is no text")?;
        self.on_node(node, &[&[program, "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io"], words].concat())
    }

    fn index(&self, node: &str) -> Result<usize> {
        NODES.iter().position(|other| *other == node).with_context(|| format!("there is no {node}"))
    }

    /// A command in a node's namespaces.
    ///
    /// # Errors
    /// When the node is not up.
    pub fn on_node(&self, node: &str, words: &[&str]) -> Result<Command> {
        let file = self.home.node(node).join("pid");
        let pid = fs::read_to_string(&file).with_context(|| format!("{node} is not up"))?;
        let mut command = Command::new("nsenter");
        command.args(["--target", pid.trim(), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]);
        command.args(words);
        Ok(command)
    }

    /// Captures what passes the wire to a node from now on; the files are gone with the cluster.
    ///
    /// # Errors
    /// When there is no such node, or tcpdump cannot be started.
    pub fn capture(&self, node: &str) -> Result<Capture> {
        let (index, addresses) = (u8::try_from(self.index(node)?)?, self.home.addresses());
        let (machine, to) = (addresses.machine().into(), (addresses.node(index), DISCARD).into());
        Capture::on_machine(&self.home.file("captures"), &network::port(&self.home, index + 1), (machine, to))
    }

    /// The last lines of every log.
    fn logs(&self) -> String {
        let entries = fs::read_dir(self.home.path().join("logs")).into_iter().flatten().flatten();
        let mut shown = String::new();
        for entry in entries {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
            shown += &format!("== {}\n{last}\n", entry.path().display());
        }
        shown
    }

    /// What runs, for people.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub fn status(&self) -> Result<String> {
        let kubectl = self.kubectl();
        let nodes = kubectl.run(&["get", "nodes", "-o", "wide"]);
        let Ok(nodes) = nodes else { bail!("the API server does not answer\n{}", self.logs()) };
        Ok(format!("{nodes}\n{}", kubectl.run(&["get", "pods", "-A", "-o", "wide"])?))
    }
}

/// The Node objects with their pods' ranges; kubelet adds the rest.
fn nodes(home: &Home) -> serde_json::Value {
    let items: Vec<_> = (0..)
        .zip(NODES)
        .map(|(index, node)| {
            json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": node, "labels": {"mesh.dev/cluster": home.name()}},
                "spec": {"podCIDR": pods(index), "podCIDRs": [pods(index)]},
            })
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}
