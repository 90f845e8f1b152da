//! Envoy beside each pod, in the pod's own network namespace and cgroup, as a sidecar is.
//!
//! The bytes take the same legs as in the mesh: the client connects to its proxy over loopback, that one to the other pod's
//! address over the nodes' link, and the other proxy to the application over loopback. Each Envoy has as many workers as
//! a daemon and writes a line for each connection, as the daemons do. It has less to do: it is told where to go, while a daemon
//! looks up the original destination, the Service and the identities. What it does not do is pool: each connection has a TLS
//! handshake of its own, which the resumption of sessions (on by default) shortens.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use mesh_core::{SpiffeId, TrustDomain};
use mesh_lab::{Place, Pod, Process, wait_until};
use mesh_transport::CertificateAuthority;

use super::envoy_config::{self, Role};
use crate::stage::{App, NAMESPACE, PATIENCE, Stage};

const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What is inside TLS between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The connection's bytes.
    Tcp,
    /// HTTP/2 with a CONNECT for each connection.
    Hbone,
}

/// The running Envoys: the client's and the server's.
#[derive(Debug)]
pub(crate) struct Envoys {
    protocol: Protocol,
    client: Process,
    server: Process,
}

impl Envoys {
    /// Writes certificates and configurations and starts both.
    pub(crate) fn start(stage: &Stage, protocol: Protocol) -> Result<Self> {
        let program = stage.settings.envoy.as_deref().context("Envoy is not installed")?.display().to_string();
        let home = stage.lab.home().join("envoy");
        fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
        let (client_id, server_id) = write_certificates(&home, &stage.lab.ca_dir()?)?;
        let (client_role, server_role) = (Role::Client { server: stage.server.ipv4() }, Role::Server);
        let run = |pod: &Pod, name: &str, role, peer: &SpiffeId| {
            let config = home.join(format!("{name}.json"));
            let text = envoy_config::render(&home.join(name), role, protocol, peer);
            fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
            let (config, workers) = (config.display().to_string(), stage.settings.workers.to_string());
            pod.spawn(&[
                &program,
                "-c",
                &config,
                "--concurrency",
                &workers,
                "--log-level",
                "warn",
                "--disable-hot-restart",
            ])
        };
        let server = run(&stage.server, "server", server_role, &client_id)?;
        let client = run(&stage.client, "client", client_role, &server_id)?;
        let mut envoys = Self { protocol, client, server };
        envoys.wait_until_ready(&stage.client)?;
        Ok(envoys)
    }

    /// Until a line comes back through both.
    fn wait_until_ready(&mut self, client: &Pod) -> Result<()> {
        let to = format!("127.0.0.1:{}", Self::entrance(App::Echo));
        wait_until("an echo through both Envoys", PATIENCE, || {
            for envoy in [&mut self.client, &mut self.server] {
                if let Some(status) = envoy.status()? {
                    bail!("Envoy ended with {status}; its log: {}", envoy.log());
                }
            }
            let echo = client.exec(&["mesh-traffic", "connect", "--to", &to, "--timeout", "1"])?;
            Ok((echo.code == Some(0)).then_some(()))
        })
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The port at which the client's Envoy takes connections for an application.
    pub(crate) fn entrance(app: App) -> u16 {
        envoy_config::entrance(app)
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        vec![self.client.id(), self.server.id()]
    }
}

/// Certificates of the lab's own authority for both pods, as `<name>.pem`, `<name>.key` and `roots.pem`: P-256, as the mesh's.
fn write_certificates(home: &Path, ca: &Path) -> Result<(SpiffeId, SpiffeId)> {
    let now = SystemTime::now();
    let authority = CertificateAuthority::load(ca, now).context("the lab's CA")?;
    let roots: Vec<_> = authority.roots().iter().map(|root| pem::Pem::new("CERTIFICATE", root.to_vec())).collect();
    write_secret(&home.join("roots.pem"), &pem::encode_many(&roots))?;
    let trust_domain: TrustDomain = "cluster.local".parse()?;
    let identity = |name: &str| {
        let identity = SpiffeId::new(&trust_domain, NAMESPACE, name)?;
        let issued = authority.issue(&identity, LIFETIME, now)?;
        let chain: Vec<_> = issued.chain.iter().map(|link| pem::Pem::new("CERTIFICATE", link.to_vec())).collect();
        write_secret(&home.join(format!("{name}.pem")), &pem::encode_many(&chain))?;
        let key = pem::Pem::new("PRIVATE KEY", issued.key.secret_pkcs8_der());
        write_secret(&home.join(format!("{name}.key")), &pem::encode(&key))?;
        Ok::<_, anyhow::Error>(identity)
    };
    Ok((identity("client")?, identity("server")?))
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    let open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let write = |mut file: fs::File| std::io::Write::write_all(&mut file, text.as_bytes());
    open.and_then(write).with_context(|| format!("writing {}", path.display()))
}
