//! The lab of the bench: two pods on two nodes or on one, and the servers that every subject reaches.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use mesh_lab::{Lab, Outside, Place, Pod, PodSpec, Process, Service, ServiceSpec, wait_until};

use crate::sampling::cpu::CpuMeter;
use crate::subjects::Subject;
use crate::subjects::envoy::{Envoys, Protocol};
use crate::subjects::mesh::{self, Daemons};

/// How long anything may take that is awaited by its event.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// What the kernel needs at most to take off the programs of links that went.
const UNLINKING: Duration = Duration::from_millis(300);
/// The node of the client's pod, and that of the server's.
pub(crate) const CLIENT_NODE: &str = "node-a";
pub(crate) const SERVER_NODE: &str = "node-b";
/// The pods' namespace and its service accounts.
pub(crate) const NAMESPACE: &str = "bench";
/// The option with TCP's congestion control; every network namespace has its own.
const CONGESTION: &str = "net.ipv4.tcp_congestion_control";
/// Octets of an HTTP answer's body.
const BODY: usize = 1024;

/// A server in the server's pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum App {
    /// nginx; answers from memory.
    Http,
    /// iperf3.
    Iperf,
    /// Sends back what comes.
    Echo,
    /// Ends every connection at once. There is one in the client's pod too, and one outside.
    Refuse,
}

impl App {
    pub(crate) const ALL: [Self; 4] = [Self::Http, Self::Iperf, Self::Echo, Self::Refuse];

    pub(crate) const fn port(self) -> u16 {
        match self {
            Self::Http => 8080,
            Self::Iperf => 5201,
            Self::Echo => 7000,
            Self::Refuse => 7001,
        }
    }
}

/// What a stage is set up with.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Worker threads of each proxy, and of the web server.
    pub(crate) workers: u32,
    /// More arguments for the daemons.
    pub(crate) mesh_args: Vec<String>,
    /// TCP's congestion control in the pods; the machine's default without one.
    pub(crate) congestion: Option<String>,
    /// Whether the server's pod is on the client's node.
    pub(crate) one_node: bool,
    /// Envoy's program; none when it is not measured.
    pub(crate) envoy: Option<PathBuf>,
}

impl Settings {
    /// The nodes that have pods, the client's first.
    fn nodes(&self) -> &'static [&'static str] {
        if self.one_node { &[CLIENT_NODE] } else { &[CLIENT_NODE, SERVER_NODE] }
    }
}

/// Everything that runs. The lab comes last, so that it is taken down after what runs in it.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) settings: Settings,
    daemons: Option<Daemons>,
    enrolled: bool,
    envoys: Option<Envoys>,
    /// Runs from when it is first measured.
    waypoint: Option<Pod>,
    _servers: Vec<Process>,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
    /// What a waypoint is asked by: [`App::Http`] alone.
    service: Service,
    /// A machine outside the mesh, with [`App::Refuse`].
    pub(crate) outside: Outside,
    pub(crate) lab: Lab,
}

impl Stage {
    /// Makes the lab, the pods and the servers. No subject is in force yet.
    pub(crate) fn set_up(settings: Settings) -> Result<Self> {
        let lab = Lab::builder().node(CLIENT_NODE).node(SERVER_NODE).build()?;
        let client = lab.deploy(PodSpec::new(NAMESPACE, "client").on(CLIENT_NODE).service_account("client"))?;
        let config = lab.home().join("nginx.conf");
        let home = lab.home().display().to_string();
        fs::write(&config, nginx_config(&home, settings.workers, "")).context("writing nginx's configuration")?;
        let nginx = ["nginx", "-p", &home, "-c", &config.display().to_string()];
        let server_node = settings.nodes().last().copied().unwrap_or(SERVER_NODE);
        let spec = PodSpec::new(NAMESPACE, "server").on(server_node).service_account("server");
        let server = lab.deploy(spec.port("http", App::Http.port()).command(nginx))?;
        let port = App::Http.port();
        let service = lab.service(ServiceSpec::new(NAMESPACE, "server").pods(&["server"]).port("http", port, port))?;
        for pod in [&client, &server] {
            // Thousands of connections a second must not run out of ports.
            let mut options =
                vec!["net.ipv4.ip_local_port_range=16000 65000".to_owned(), "net.ipv4.tcp_tw_reuse=1".to_owned()];
            options.extend(settings.congestion.iter().map(|name| format!("{CONGESTION}={name}")));
            let mut argv = vec!["sysctl", "-q", "-w"];
            argv.extend(options.iter().map(String::as_str));
            pod.exec(&argv)?.success()?;
        }
        let outside = lab.outside("bystander")?;
        let servers = start_servers(&client, &server, &outside)?;
        Ok(Self {
            settings,
            daemons: None,
            enrolled: false,
            envoys: None,
            waypoint: None,
            _servers: servers,
            client,
            server,
            service,
            outside,
            lab,
        })
    }

    /// Puts `subject` between the pods and waits until it is there.
    pub(crate) fn enter(&mut self, subject: Subject) -> Result<()> {
        match subject {
            Subject::Raw => self.leave_mesh(),
            Subject::Mesh | Subject::MeshH2 => {
                self.add_hooks(subject, self.settings.nodes())?;
                self.join_mesh()
            }
            Subject::Waypoint => {
                self.enter(Subject::Mesh)?;
                if self.waypoint.is_none() {
                    self.waypoint = Some(mesh::start_waypoint(&self.lab, &self.settings)?);
                    self.wait_until_by_waypoint()?;
                }
                Ok(())
            }
            Subject::Envoy => self.start_envoys(Protocol::Tcp),
            Subject::EnvoyHbone => self.start_envoys(Protocol::Hbone),
        }
    }

    /// The same with proxies that have carried nothing yet.
    pub(crate) fn enter_anew(&mut self, subject: Subject) -> Result<()> {
        match subject {
            Subject::Raw => {}
            Subject::Mesh | Subject::MeshH2 | Subject::Waypoint => self.remove_hooks()?,
            Subject::Envoy | Subject::EnvoyHbone => self.envoys = None,
        }
        self.enter(subject)
    }

    /// Starts the daemons of `subject` on these nodes alone, where they do not run; the pods stay as they are.
    pub(crate) fn add_hooks(&mut self, subject: Subject, nodes: &[&str]) -> Result<()> {
        if self.daemons.as_ref().is_some_and(|daemons| !daemons.are(subject, nodes)) {
            self.remove_hooks()?;
        }
        if self.daemons.is_none() {
            self.daemons = Some(Daemons::start(&self.lab, &self.settings, subject, nodes)?);
        }
        Ok(())
    }

    /// Ends the daemons and takes what they pinned out of the kernel.
    pub(crate) fn remove_hooks(&mut self) -> Result<()> {
        self.leave_mesh()?;
        if let Some(daemons) = self.daemons.take() {
            daemons.stop(&self.lab)?;
            // Nothing tells when the last link's programs are off.
            thread::sleep(UNLINKING);
        }
        Ok(())
    }

    /// Puts the pods into the mesh of the daemons that run.
    pub(crate) fn join_mesh(&mut self) -> Result<()> {
        if let (Some(daemons), false) = (&self.daemons, self.enrolled) {
            daemons.enrol(&self.lab, &self.settings)?;
            self.enrolled = true;
        }
        Ok(())
    }

    /// Takes the pods out of the mesh.
    pub(crate) fn leave_mesh(&mut self) -> Result<()> {
        if let (Some(daemons), true) = (&self.daemons, self.enrolled) {
            daemons.withdraw(&self.lab)?;
            self.enrolled = false;
            self.wait_until_hooks_are_off()?;
        }
        Ok(())
    }

    /// The kernel takes a link's program off some time after its last reference went; until then the pods' interfaces
    /// let no connection through that the mesh did not make.
    fn wait_until_hooks_are_off(&self) -> Result<()> {
        let to = self.target(Subject::Raw, App::Refuse).to_string();
        wait_until("plain connections to get through", PATIENCE, || {
            let probe = self.client.exec(&["mesh-traffic", "connect", "--to", &to, "--no-read", "--timeout", "0.2"])?;
            Ok((probe.json()?["connect"] == "ok").then_some(()))
        })
    }

    /// Until a request of the client has come to the waypoint.
    fn wait_until_by_waypoint(&self) -> Result<()> {
        let waypoint = self.waypoint.as_ref().context("no waypoint runs")?;
        let url = format!("http://{}/by-waypoint", self.target(Subject::Waypoint, App::Http));
        wait_until("a request to come to the waypoint", PATIENCE, || {
            self.client.exec(&["curl", "--silent", "--output", "/dev/null", "--max-time", "2", &url])?;
            Ok(waypoint.log().contains("/by-waypoint").then_some(()))
        })
    }

    fn start_envoys(&mut self, protocol: Protocol) -> Result<()> {
        self.leave_mesh()?;
        if self.envoys.as_ref().is_some_and(|envoys| envoys.protocol() == protocol) {
            return Ok(());
        }
        self.envoys = None;
        self.envoys = Some(Envoys::start(self, protocol)?);
        Ok(())
    }

    /// Where the client has to connect to, to reach an application through `subject`.
    pub(crate) fn target(&self, subject: Subject, app: App) -> SocketAddr {
        match subject {
            Subject::Raw | Subject::Mesh | Subject::MeshH2 => (self.server.ipv4(), app.port()).into(),
            Subject::Waypoint => self.service.at(app.port()),
            Subject::Envoy | Subject::EnvoyHbone => (Ipv4Addr::LOCALHOST, Envoys::entrance(app)).into(),
        }
    }

    /// The processes of `subject`'s proxies: the client's, then the server's.
    pub(crate) fn proxies(&self, subject: Subject) -> Result<Vec<u32>> {
        let daemons = || self.daemons.as_ref().map(Daemons::processes).unwrap_or_default();
        Ok(match subject {
            Subject::Raw => Vec::new(),
            Subject::Mesh | Subject::MeshH2 => daemons(),
            Subject::Waypoint => {
                let waypoint = self.waypoint.as_ref().map(Pod::main_process).transpose()?;
                daemons().into_iter().chain(waypoint).collect()
            }
            Subject::Envoy | Subject::EnvoyHbone => self.envoys.as_ref().map(Envoys::processes).unwrap_or_default(),
        })
    }

    /// TCP's congestion control in the pods.
    pub(crate) fn congestion(&self) -> Result<String> {
        Ok(self.client.exec(&["sysctl", "-n", CONGESTION])?.success()?.trim().to_owned())
    }

    /// Begins to measure processor time.
    pub(crate) fn meter(&self, subject: Subject) -> Result<CpuMeter> {
        CpuMeter::start(&self.lab.id(), self.proxies(subject)?)
    }

    /// Ends everything and says what could not be removed.
    pub(crate) fn take_down(self) -> Result<()> {
        let Self { daemons, envoys, _servers, lab, .. } = self;
        drop((daemons, envoys, _servers));
        lab.take_down()
    }

    /// Connections that the mesh has made so far, over mTLS or by the kernel.
    pub(crate) fn carried_by_mesh(&self) -> Result<u64> {
        self.daemons.as_ref().map_or(Ok(0), Daemons::carried)
    }
}

fn start_servers(client: &Pod, server: &Pod, outside: &Outside) -> Result<Vec<Process>> {
    let iperf = server.spawn(&["iperf3", "--server", "--forceflush", "--port", &App::Iperf.port().to_string()])?;
    let echo = server.spawn(&["mesh-traffic", "echo", "--listen", &format!("0.0.0.0:{}", App::Echo.port())])?;
    let refuse = ["mesh-traffic", "refuse", "--listen", &format!("0.0.0.0:{}", App::Refuse.port())];
    let mut servers = vec![iperf, echo, server.spawn(&refuse)?, client.spawn(&refuse)?, outside.spawn(&refuse)?];
    let lines = ["Server listening", "listening", "listening", "listening", "listening"];
    for (server, line) in servers.iter_mut().zip(lines) {
        server.wait_for_line(line, PATIENCE)?;
    }
    Ok(servers)
}

/// A web server that answers from memory, with a worker for each of the proxy's, so that it is no bottleneck; and more servers.
pub(crate) fn nginx_config(home: &str, workers: u32, more: &str) -> String {
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {home}/nginx-{name};\n"))
        .concat();
    let (port, body) = (App::Http.port(), "x".repeat(BODY));
    format!(
        "user root;\nworker_processes {workers};\ndaemon off;\npid {home}/nginx.pid;\nerror_log stderr error;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n{paths}    access_log off;\n    keepalive_requests 1000000000;\n    keepalive_timeout 300s;\n    \
         server {{\n        listen 0.0.0.0:{port} reuseport backlog=4096;\n        location / {{ return 200 {body}; }}\n    }}\n{more}}}\n"
    )
}
