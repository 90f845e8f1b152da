//! The lab: one pod with the client, the server and both proxies in it, and no daemon on its node.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use mesh_lab::{Lab, Place as _, Pod, PodSpec, Process, ServiceSpec, wait_until};

use super::envoy;
use crate::stage::nginx_config;
use crate::subjects::Subject;

/// How long anything may take that is awaited by its event.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// The server's port.
pub(super) const SERVER: u16 = 8080;
/// The proxies' port with one route.
pub(super) const ONE: u16 = 8000;
/// The proxies' port with many routes.
pub(super) const MANY: u16 = 8001;
/// How much further on Envoy's ports are.
pub(super) const ENVOYS: u16 = 1_000;
/// How many those are.
pub(super) const ROUTES: u32 = 1_000;
/// Routes of one object; the API itself allows 16 rules.
const RULES: u32 = 16;

const NAMESPACE: &str = "bench";
const NODE: &str = "node-a";

/// Which of the proxies' listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    OneRoute,
    ManyRoutes,
}

/// Everything that runs. The lab comes last, so that it is taken down after what runs in it.
pub(super) struct Stage {
    /// Where all of it runs: nothing but the loopback lies between them.
    pub(super) pod: Pod,
    _server: Process,
    mesh: Process,
    envoy: Process,
    pub(super) lab: Lab,
}

impl Stage {
    pub(super) fn set_up(envoy: &Path) -> Result<Self> {
        let lab = Lab::builder().node(NODE).build()?;
        let pod =
            lab.deploy(PodSpec::new(NAMESPACE, "gateway").on(NODE).service_account("gateway").label("app", "server"))?;
        lab.service(ServiceSpec::new(NAMESPACE, "server").select("app", "server").port("http", SERVER, SERVER))?;
        lab.apply("gateway.yaml", &manifests())?;
        let options = ["net.ipv4.ip_local_port_range=16000 65000", "net.ipv4.tcp_tw_reuse=1"];
        pod.exec(&[&["sysctl", "-q", "-w"], &options[..]].concat())?.success()?;
        let home = lab.home().display().to_string();
        let config = lab.home().join("nginx.conf");
        fs::write(&config, nginx_config(&home, 1)).context("writing nginx's configuration")?;
        let server = pod.spawn(&["taskset", "-c", "1", "nginx", "-p", &home, "-c", &config.display().to_string()])?;
        let (mesh, envoy) = (start_mesh(&lab, &pod)?, start_envoy(&lab, &pod, envoy)?);
        let stage = Self { pod, _server: server, mesh, envoy, lab };
        for subject in [Subject::Raw, Subject::Mesh, Subject::Envoy] {
            stage.wait_until_ready(subject)?;
        }
        Ok(stage)
    }

    pub(super) fn address(&self, subject: Subject, front: Front) -> SocketAddr {
        let base = match subject {
            Subject::Raw => return SocketAddr::new(self.pod.ipv4(), SERVER),
            Subject::Mesh | Subject::MeshH2 => ONE,
            Subject::Envoy | Subject::EnvoyHbone => ONE + ENVOYS,
        };
        let port = if front == Front::OneRoute { base } else { base + MANY - ONE };
        SocketAddr::new(self.pod.ipv4(), port)
    }

    pub(super) fn url(&self, subject: Subject, front: Front) -> String {
        format!("http://{}/", self.address(subject, front))
    }

    /// The proxy's process; raw has none.
    pub(super) fn proxy(&self, subject: Subject) -> Option<u32> {
        match subject {
            Subject::Raw => None,
            Subject::Mesh | Subject::MeshH2 => Some(self.mesh.id()),
            Subject::Envoy | Subject::EnvoyHbone => Some(self.envoy.id()),
        }
    }

    /// Until a request is answered at both listeners.
    fn wait_until_ready(&self, subject: Subject) -> Result<()> {
        for front in [Front::OneRoute, Front::ManyRoutes] {
            let url = self.url(subject, front);
            wait_until(&format!("an answer by {}", subject.name()), PATIENCE, || {
                let answer = self.pod.exec(&["curl", "--silent", "--fail", "--output", "/dev/null", &url])?;
                Ok((answer.code == Some(0)).then_some(()))
            })?;
        }
        Ok(())
    }

    pub(super) fn take_down(self) -> Result<()> {
        let Self { mesh, envoy, _server, lab, .. } = self;
        drop((mesh, envoy, _server));
        lab.take_down()
    }
}

/// The Gateway, and the routes of both listeners.
fn manifests() -> String {
    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: gateway, namespace: {NAMESPACE}}}\nspec:\n  \
         gatewayClassName: mesh\n  listeners: [{{name: one, port: {ONE}, protocol: HTTP}}, {{name: many, port: {MANY}, protocol: HTTP}}]\n"
    );
    let backend = format!("backendRefs: [{{name: server, port: {SERVER}}}]");
    let mut route = |name: &str, listener: &str, rules: &str| {
        text += &format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec:\n  \
             parentRefs: [{{name: gateway, sectionName: {listener}}}]\n  rules:\n{rules}"
        );
    };
    route("one", "one", &format!("  - {backend}\n"));
    route("rest", "many", &format!("  - {backend}\n"));
    for first in (0..ROUTES).step_by(RULES as usize) {
        let rules = (first..(first + RULES).min(ROUTES))
            .map(|number| format!("  - matches: [{{path: {{type: Exact, value: /route/{number}}}}}]\n    {backend}\n"));
        route(&format!("many-{first}"), "many", &rules.collect::<String>());
    }
    text
}

fn start_mesh(lab: &Lab, pod: &Pod) -> Result<Process> {
    let (config, ca) = (lab.config_dir().display().to_string(), lab.ca_dir()?.display().to_string());
    let own = format!("{NAMESPACE}/gateway");
    let command =
        ["taskset", "-c", "0", "mesh-waypoint", "serve", "--name", &own, "--identity", &own, "--workers", "1"];
    pod.spawn(&[&command[..], &["--config", &config, "--ca", &ca]].concat())
}

fn start_envoy(lab: &Lab, pod: &Pod, program: &Path) -> Result<Process> {
    let (config, log) = (lab.home().join("envoy.json"), lab.home().join("envoy.access.log"));
    let text = envoy::render(pod.ipv4(), &log.display().to_string());
    fs::write(&config, text).context("writing Envoy's configuration")?;
    let (program, config) = (program.display().to_string(), config.display().to_string());
    let command = ["taskset", "-c", "0", &program, "-c", &config, "--concurrency", "1", "--log-level", "warn"];
    pod.spawn(&[&command[..], &["--disable-hot-restart"]].concat())
}
