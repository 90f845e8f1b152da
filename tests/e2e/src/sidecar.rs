//! A pod outside the mesh with a sidecar of Istio's: Envoy, with the transport that Istio gives it for ISTIO_MUTUAL.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use mesh_core::SpiffeId;
use mesh_core::labels::TLS_MODE;
use mesh_lab::{Place as _, Pod, PodSpec, Process, envoy};
use mesh_transport::CertificateAuthority;
use serde_json::{Value, json};

use crate::{Mesh, PATIENCE, go, server::serving};

/// Where it takes its application's connections for the first port; the others follow.
const FIRST_ENTRANCE: u16 = 9101;
const TYPES: &str = "type.googleapis.com/envoy.extensions";
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What says that TLS is meant for the sidecar and not for its application, where it reads nothing of what comes.
const ISTIO: [&str; 2] = ["istio", "istio-peer-exchange"];
/// The same where it reads HTTP.
const ISTIO_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// What a sidecar takes at a port.
#[derive(Clone, Copy, Debug)]
pub enum Taken {
    /// Bytes.
    Tcp,
    /// HTTP/1.1 and HTTP/2, which it reads.
    Http,
}

/// A port of a sidecar's, what it takes there, and the application's port.
pub type Served = (u16, Taken, u16);

/// What a sidecar shows and offers.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
    /// Who it says that it is.
    pub identity: &'a str,
    /// The directory of the authority that has signed its certificate.
    pub signed_by: &'a Path,
    /// Its protocols, in ALPN.
    pub protocols: &'a [&'a str],
}

impl Offer<'_> {
    /// What Istio's sidecars offer for connections in which they read nothing.
    pub const TCP: [&'static str; 2] = ["istio-peer-exchange", "istio"];
    /// What they choose from where connections come in.
    pub const SERVED: [&'static str; 3] = ["istio-peer-exchange", "h2", "http/1.1"];
}

/// The pod and its Envoy, which ends when dropped.
pub struct Sidecar {
    _envoy: Process,
    /// The pod; where its sidecar carries to others, applications in it dial the [`Self::entrance`]s.
    pub pod: Pod,
}

impl Sidecar {
    /// Deploys a pod on the first node and starts its Envoy, which carries to these ports of `server`, whose identity it expects.
    pub fn start(mesh: &Mesh, name: &str, offer: &Offer<'_>, server: &Pod, ports: &[u16]) -> Result<Self> {
        let pod = mesh.lab.deploy(spec(name, "node-a"))?;
        let expected = format!("spiffe://cluster.local/ns/{}/sa/{}", server.namespace(), server.name());
        let home = home(mesh, name, offer)?;
        let context = tls_to(&home, &expected, offer.protocols);
        let parts = ports.iter().zip(FIRST_ENTRANCE..).map(|(&port, entrance)| {
            let to = SocketAddr::new(server.ipv4(), port);
            (listener(Self::entrance(entrance - FIRST_ENTRANCE), None), cluster(entrance, to, Some(&context)))
        });
        Self::run(pod, &home, parts.unzip())
    }

    /// Deploys a pod on the second node that serves as [`crate::server`] does, and starts its Envoy, which takes Istio's mutual TLS
    /// at these ports, of whoever is `admitted` alone, and carries that to the application's.
    pub fn serve(mesh: &Mesh, name: &str, offer: &Offer<'_>, admitted: &str, ports: &[Served]) -> Result<Self> {
        let pod = mesh.lab.deploy(serving(spec(name, "node-b").label("app", name)))?;
        let home = home(mesh, name, offer)?;
        let context = tls_from(&home, admitted, offer.protocols);
        let parts = ports.iter().map(|&(own, taken, application)| {
            let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), application);
            let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), own);
            (listener(at, Some((&context, taken))), cluster(own, to, None))
        });
        Self::run(pod, &home, parts.unzip())
    }

    fn run(pod: Pod, home: &Path, (listeners, clusters): (Vec<Value>, Vec<Value>)) -> Result<Self> {
        let config = home.join("envoy.json");
        let text = json!({"static_resources": {"listeners": listeners, "clusters": clusters}}).to_string();
        fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        let program = envoy(&go::cache()?.join("envoy"))?.display().to_string();
        let config = config.display().to_string();
        let argv = [&*program, "-c", &config, "--concurrency", "1", "--disable-hot-restart"];
        let mut process = pod.spawn(&argv)?;
        process.wait_for_line("starting workers", PATIENCE)?;
        Ok(Self { _envoy: process, pod })
    }

    /// Where an application beside it dials for the port that was given at this place.
    pub fn entrance(place: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), FIRST_ENTRANCE + place)
    }
}

/// A pod as Istio's injection labels it.
fn spec(name: &str, node: &str) -> PodSpec {
    PodSpec::new("legacy", name).on(node).service_account(name).label(TLS_MODE, "istio")
}

/// A directory with the sidecar's certificates.
fn home(mesh: &Mesh, name: &str, offer: &Offer<'_>) -> Result<PathBuf> {
    let home = mesh.lab.home().join(name);
    fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
    write_certificates(&home, &mesh.lab.ca_dir()?, offer)?;
    Ok(home)
}

/// A chain and a key for the sidecar, and the root of whom it trusts.
fn write_certificates(home: &Path, trusted: &Path, offer: &Offer<'_>) -> Result<()> {
    let now = SystemTime::now();
    let certificates = |list: &[_]| {
        let list: Vec<_> = list.iter().map(|one: &Vec<u8>| pem::Pem::new("CERTIFICATE", one.clone())).collect();
        pem::encode_many(&list)
    };
    let roots = CertificateAuthority::load(trusted, now).context("the mesh's CA")?;
    let roots: Vec<_> = roots.roots().iter().map(|root| root.to_vec()).collect();
    write_secret(&home.join("roots.pem"), &certificates(&roots))?;
    let authority = CertificateAuthority::load(offer.signed_by, now).context("the sidecar's CA")?;
    let issued = authority.issue(&SpiffeId::parse(offer.identity)?, LIFETIME, now)?;
    let chain: Vec<_> = issued.chain.iter().map(|link| link.to_vec()).collect();
    write_secret(&home.join("chain.pem"), &certificates(&chain))?;
    let key = pem::Pem::new("PRIVATE KEY", issued.key.secret_pkcs8_der());
    write_secret(&home.join("key.pem"), &pem::encode(&key))
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    let open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let write = |mut file: fs::File| std::io::Write::write_all(&mut file, text.as_bytes());
    open.and_then(write).with_context(|| format!("writing {}", path.display()))
}

/// TLS as Istio configures it for ISTIO_MUTUAL: its own certificate, the server's identity as a URI, TLS 1.3 where it can be had.
fn tls_to(home: &Path, expected: &str, protocols: &[&str]) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": format!("{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext"),
        "sni": "outbound_.7001_._.server.app.svc.cluster.local",
        "common_tls_context": common(home, expected, protocols),
    }})
}

/// TLS as Istio configures it where mutual TLS comes in.
fn tls_from(home: &Path, admitted: &str, protocols: &[&str]) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": common(home, admitted, protocols),
    }})
}

fn common(home: &Path, other: &str, protocols: &[&str]) -> Value {
    let file = |name: &str| json!({"filename": home.join(name)});
    json!({
        "alpn_protocols": protocols,
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": file("chain.pem"), "private_key": file("key.pem")}],
        "validation_context": {
            "trusted_ca": file("roots.pem"),
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": other}}],
        },
    })
}

/// Takes connections; with TLS, those alone that offer Istio's names for what is taken.
fn listener(at: SocketAddr, tls: Option<(&Value, Taken)>) -> Value {
    let name = at.port().to_string();
    let bytes = || {
        json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": {
            "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"), "stat_prefix": name, "cluster": name,
        }})
    };
    let (chain, filters) = match tls {
        None => (json!({"filters": [bytes()]}), json!([])),
        Some((tls, taken)) => {
            let (filter, names) = match taken {
                Taken::Tcp => (bytes(), &ISTIO[..]),
                Taken::Http => (http(&name), &ISTIO_HTTP[..]),
            };
            (
                json!({
                    "filters": [filter],
                    "transport_socket": tls,
                    "filter_chain_match": {"transport_protocol": "tls", "application_protocols": names},
                }),
                json!([{"name": "envoy.filters.listener.tls_inspector", "typed_config": {
                    "@type": format!("{TYPES}.filters.listener.tls_inspector.v3.TlsInspector"),
                }}]),
            )
        }
    };
    json!({"name": name, "address": socket_address(at), "filter_chains": [chain], "listener_filters": filters})
}

/// Reads HTTP, and says in a field of the request by which version it came.
fn http(cluster: &str) -> Value {
    let router = format!("{TYPES}.filters.http.router.v3.Router");
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": cluster,
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": router}}],
        "route_config": {
            "request_headers_to_add": [{"header": {"key": "x-came-by", "value": "%PROTOCOL%"}}],
            "virtual_hosts": [{
                "name": cluster, "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
            }],
        },
    }})
}

fn cluster(port: u16, to: SocketAddr, tls: Option<&Value>) -> Value {
    let name = port.to_string();
    let endpoint = json!({"endpoint": {"address": socket_address(to)}});
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "10s", "transport_socket": tls,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip(), "port_value": address.port()}})
}
