//! The ports of a Pod at which kubelet knocks: its probes', and those of lifecycle hooks.

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, PodSpec, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::translate::port_number;

/// The ports, and the fields that name none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ProbePorts {
    /// In order and each once.
    pub ports: Box<[u16]>,
    /// Each field with what is wrong with it.
    pub(crate) unknown: Box<[(String, String)]>,
}

impl ProbePorts {
    /// Reads the Pod's containers, which are not kept: they are most of a Pod.
    pub(crate) fn of(spec: &PodSpec) -> Self {
        let init = spec.init_containers.as_deref().unwrap_or_default();
        let (mut ports, mut unknown) = (Vec::new(), Vec::new());
        for (kind, containers) in [("initContainers", init), ("containers", spec.containers.as_slice())] {
            for (index, container) in containers.iter().enumerate() {
                for (field, port) in named_of(container) {
                    match resolve(container, &port) {
                        Ok(port) => ports.push(port),
                        Err(message) => unknown.push((format!("spec.{kind}[{index}].{field}"), message)),
                    }
                }
            }
        }
        ports.sort_unstable();
        ports.dedup();
        Self { ports: ports.into(), unknown: unknown.into() }
    }
}

/// The ports that a container's probes and hooks name, each with its field.
fn named_of(container: &Container) -> Vec<(String, IntOrString)> {
    let probes = [
        ("startupProbe", &container.startup_probe),
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
    ];
    let probes = probes.into_iter().filter_map(|(name, probe)| {
        let (kind, port) = of_probe(probe.as_ref()?)?;
        Some((format!("{name}.{kind}.port"), port))
    });
    let lifecycle = container.lifecycle.as_ref();
    let hooks = [
        ("postStart", lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref())),
        ("preStop", lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref())),
    ];
    let hooks = hooks.into_iter().filter_map(|(name, hook)| {
        let (kind, port) = of_hook(hook?)?;
        Some((format!("lifecycle.{name}.{kind}.port"), port))
    });
    probes.chain(hooks).collect()
}

/// What of the probe goes to the Pod's own address: kubelet goes elsewhere where it names a host.
fn of_probe(probe: &Probe) -> Option<(&'static str, IntOrString)> {
    let http = probe.http_get.as_ref().filter(|get| is_own(get.host.as_deref()));
    let tcp = probe.tcp_socket.as_ref().filter(|tcp| is_own(tcp.host.as_deref()));
    http.map(|get| ("httpGet", get.port.clone()))
        .or_else(|| tcp.map(|tcp| ("tcpSocket", tcp.port.clone())))
        .or_else(|| probe.grpc.as_ref().map(|grpc| ("grpc", IntOrString::Int(grpc.port))))
}

fn of_hook(hook: &LifecycleHandler) -> Option<(&'static str, IntOrString)> {
    let http = hook.http_get.as_ref().filter(|get| is_own(get.host.as_deref()));
    http.map(|get| ("httpGet", get.port.clone()))
}

fn is_own(host: Option<&str>) -> bool {
    host.is_none_or(str::is_empty)
}

/// A port by its number, or by its name among the container's own, as kubelet reads it.
fn resolve(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let name = match port {
        IntOrString::Int(number) => return port_number(*number),
        IntOrString::String(name) => name,
    };
    let declared = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
    match (declared, name.parse()) {
        (Some(port), _) => port_number(port.container_port),
        (None, Ok(number)) => port_number(number),
        (None, Err(_)) => Err(format!("container {} declares no port named {name:?}", container.name)),
    }
}
