//! Pods that serve, and pods to run clients in.

use mesh_lab::PodSpec;

use crate::NAMESPACE;

/// The ports at which [`server`] listens, each at all addresses.
pub mod port {
    /// Sends back what comes.
    pub const ECHO: u16 = 7001;
    /// Streams by script, each octet checked.
    pub const STREAM: u16 = 7002;
    /// Says first whom accept() showed, then ends.
    pub const REPORT_PEER: u16 = 7003;
    /// The same at an IPv4 socket.
    pub const REPORT_PEER_V4: u16 = 7004;
    /// Accepts and resets.
    pub const REFUSE: u16 = 7005;
    /// Sends back datagrams.
    pub const UDP_ECHO: u16 = 7006;
    /// Where nothing listens.
    pub const CLOSED: u16 = 7099;
}

/// A pod that serves at every port of [`port`], under a service account of its own name.
pub fn server(name: &str, node: &str) -> PodSpec {
    serving(client(name, node).label("app", name))
}

/// The pod, with a server at every port of [`port`].
pub(crate) fn serving(spec: PodSpec) -> PodSpec {
    let roles = [
        ("udp-echo", "[::]", port::UDP_ECHO),
        ("stream", "[::]", port::STREAM),
        ("report-peer", "[::]", port::REPORT_PEER),
        ("report-peer", "0.0.0.0", port::REPORT_PEER_V4),
        ("refuse", "[::]", port::REFUSE),
    ];
    let background = roles.map(|(role, host, port)| format!("mesh-traffic {role} --listen {host}:{port} &"));
    let script = format!("{} exec mesh-traffic echo --listen [::]:{}", background.join(" "), port::ECHO);
    let listening = ["stream", "report-peer", "report-peer-v4", "refuse", "echo"];
    let ports = [port::STREAM, port::REPORT_PEER, port::REPORT_PEER_V4, port::REFUSE, port::ECHO];
    let spec = spec.command(["sh", "-c", &script]);
    listening.into_iter().zip(ports).fold(spec, |spec, (name, port)| spec.port(name, port))
}

/// A pod that sends back what comes at [`port::ECHO`].
pub fn echo(name: &str, node: &str) -> PodSpec {
    let listen = format!("[::]:{}", port::ECHO);
    let command = ["mesh-traffic", "echo", "--listen", &listen];
    client(name, node).label("app", name).command(command).port("echo", port::ECHO)
}

/// A pod that runs nothing by itself.
pub fn client(name: &str, node: &str) -> PodSpec {
    PodSpec::new(NAMESPACE, name).on(node).service_account(name)
}
