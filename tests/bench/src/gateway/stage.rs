//! The lab: one pod with the client, the server and both proxies in it, and no daemon on its node.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use mesh_lab::{Lab, Place as _, Pod, PodSpec, Process, ServiceSpec, wait_until};
use serde_json::{Value, json};

use super::{envoy, load};
use crate::stage::nginx_config;
use crate::subjects::Subject;

/// How long anything may take that is awaited by its event.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// The server's port.
pub(super) const SERVER: u16 = 8080;
/// The server's port for gRPC.
pub(super) const GRPC_SERVER: u16 = 8081;
/// The proxies' port with one route.
pub(super) const ONE: u16 = 8000;
/// The proxies' port with many routes.
pub(super) const MANY: u16 = 8001;
/// The proxies' port for gRPC.
pub(super) const GRPC: u16 = 8002;
/// How much further on Envoy's ports are.
pub(super) const ENVOYS: u16 = 1_000;
/// How many those are.
pub(super) const ROUTES: u32 = 1_000;
/// Routes of one object; the API itself allows 16 rules.
const RULES: u32 = 16;

/// The field by which answers of the one route tell which version of the manifests made them.
pub(super) const VERSION: &str = "x-version";

const MANIFESTS: &str = "gateway.json";
const API: &str = "gateway.networking.k8s.io/v1";
/// What a call says, in the lab's own directory.
const CALL: &str = "call";
const NAMESPACE: &str = "bench";
const NODE: &str = "node-a";

/// Which of the proxies' listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    OneRoute,
    ManyRoutes,
    Grpc,
}

impl Front {
    /// Where the mesh's is.
    const fn port(self) -> u16 {
        match self {
            Self::OneRoute => ONE,
            Self::ManyRoutes => MANY,
            Self::Grpc => GRPC,
        }
    }
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
        lab.service(ServiceSpec::new(NAMESPACE, "grpc").select("app", "server").port(
            "grpc",
            GRPC_SERVER,
            GRPC_SERVER,
        ))?;
        lab.apply(MANIFESTS, &manifests(ROUTES, 0))?;
        let options = ["net.ipv4.ip_local_port_range=16000 65000", "net.ipv4.tcp_tw_reuse=1"];
        pod.exec(&[&["sysctl", "-q", "-w"], &options[..]].concat())?.success()?;
        let home = lab.home().display().to_string();
        let config = lab.home().join("nginx.conf");
        fs::write(&config, nginx_config(&home, 1, &grpc_server())).context("writing nginx's configuration")?;
        fs::write(lab.home().join(CALL), load::CALL).context("writing a call")?;
        let server = pod.spawn(&["taskset", "-c", "1", "nginx", "-p", &home, "-c", &config.display().to_string()])?;
        let (mesh, envoy) = (start_mesh(&lab, &pod)?, start_envoy(&lab, &pod, envoy)?);
        let stage = Self { pod, _server: server, mesh, envoy, lab };
        for subject in [Subject::Raw, Subject::Mesh, Subject::Envoy] {
            stage.wait_until_ready(subject)?;
        }
        Ok(stage)
    }

    pub(super) fn address(&self, subject: Subject, front: Front) -> SocketAddr {
        let port = match subject {
            Subject::Raw if front == Front::Grpc => GRPC_SERVER,
            Subject::Raw => SERVER,
            Subject::Mesh | Subject::MeshH2 | Subject::Waypoint => front.port(),
            Subject::Envoy | Subject::EnvoyHbone => front.port() + ENVOYS,
        };
        SocketAddr::new(self.pod.ipv4(), port)
    }

    pub(super) fn url(&self, subject: Subject, front: Front) -> String {
        format!("http://{}/", self.address(subject, front))
    }

    /// The file with what a call says.
    pub(super) fn call(&self) -> PathBuf {
        self.lab.home().join(CALL)
    }

    /// Puts that many routes in force beside the one, whose answers tell the version.
    pub(super) fn change(&self, routes: u32, version: u32) -> Result<()> {
        self.lab.apply(MANIFESTS, &manifests(routes, version))
    }

    /// The proxy's process; raw has none.
    pub(super) fn proxy(&self, subject: Subject) -> Option<u32> {
        match subject {
            Subject::Raw => None,
            Subject::Mesh | Subject::MeshH2 | Subject::Waypoint => Some(self.mesh.id()),
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
        let (url, call) = (self.url(subject, Front::Grpc), self.call().display().to_string());
        let nghttp = ["nghttp", "--verbose", "--data", &call, "--header", "content-type: application/grpc", &url];
        wait_until(&format!("the end of a call by {}", subject.name()), PATIENCE, || {
            let answer = self.pod.exec(&nghttp)?;
            Ok(answer.stdout.contains("grpc-status: 0").then_some(()))
        })
    }

    pub(super) fn take_down(self) -> Result<()> {
        let Self { mesh, envoy, _server, lab, .. } = self;
        drop((mesh, envoy, _server));
        lab.take_down()
    }
}

/// The Gateway, and the routes of its listeners, as an API server tells them: JSON.
fn manifests(routes: u32, version: u32) -> String {
    let listener = |(name, port): (&str, u16)| json!({"name": name, "port": port, "protocol": "HTTP"});
    let listeners = [("one", ONE), ("many", MANY), ("grpc", GRPC)].map(listener);
    let gateway = json!({
        "apiVersion": API, "kind": "Gateway", "metadata": {"name": "gateway", "namespace": NAMESPACE},
        "spec": {"gatewayClassName": "mesh", "listeners": listeners},
    });
    let to = |name: &str, port: u16| json!([{"name": name, "port": port}]);
    let rest = || json!({"backendRefs": to("server", SERVER)});
    let set = json!({"set": [{"name": VERSION, "value": version.to_string()}]});
    let mut one = rest();
    one["filters"] = json!([{"type": "ResponseHeaderModifier", "responseHeaderModifier": set}]);
    let mut items = vec![
        gateway,
        route("one", "one", &[one]),
        route("grpc", "grpc", &[json!({"backendRefs": to("grpc", GRPC_SERVER)})]),
        route("rest", "many", &[rest()]),
    ];
    for first in (0..routes).step_by(RULES as usize) {
        let rules = (first..(first + RULES).min(routes)).map(|number| {
            let mut rule = rest();
            rule["matches"] = json!([{"path": {"type": "Exact", "value": format!("/route/{number}")}}]);
            rule
        });
        items.push(route(&format!("many-{first}"), "many", &rules.collect::<Vec<_>>()));
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

fn route(name: &str, listener: &str, rules: &[Value]) -> Value {
    json!({
        "apiVersion": API, "kind": "HTTPRoute", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"parentRefs": [{"name": "gateway", "sectionName": listener}], "rules": rules},
    })
}

/// A server of gRPC: whatever is called, it answers with one message of 1 KiB, and ends with trailers.
fn grpc_server() -> String {
    let answer = format!("\0\0\0\x04\0{}", "x".repeat(0x400));
    format!(
        "    server {{\n        listen 0.0.0.0:{GRPC_SERVER} http2 reuseport backlog=4096;\n        \
         default_type application/grpc;\n        add_trailer grpc-status 0;\n        \
         location / {{ return 200 \"{answer}\"; }}\n    }}\n"
    )
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
