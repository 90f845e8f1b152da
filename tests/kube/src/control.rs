//! The control plane: etcd, API server, controller manager and scheduler, in a network namespace of their own.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::addresses::{API_PORT, API_SERVICE, PODS, SERVICES};
use crate::certificates::{Authority, Pair};
use crate::home::{Home, NODES};
use crate::programs::Programs;
use crate::{cgroups, kubeconfig, network};

/// The program that everything else talks to.
pub(crate) const API_SERVER: &str = "kube-apiserver";
/// Who signs service accounts' tokens.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The API server's names inside the cluster.
const API_NAMES: [&str; 4] =
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// Makes every certificate and kubeconfig of the cluster.
pub(crate) fn credentials(home: &Home) -> Result<()> {
    let (authority, addresses) = (Authority::make(&home.certificates())?, home.addresses());
    let server = [addresses.control().into(), API_SERVICE.into()];
    authority.server("apiserver", &API_NAMES, &server)?;
    authority.client("apiserver-to-kubelet", "kube-apiserver", Some("system:masters"))?;
    authority.token_key()?;
    let user = |file: &str, name: &str, group: Option<&str>| -> Result<()> {
        let pair = authority.client(file, name, group)?;
        kubeconfig::write(&home.file(&format!("{file}.kubeconfig")), &addresses.api(), &authority.root(), &pair)
    };
    user("admin", "mesh-admin", Some("system:masters"))?;
    user("controller-manager", "system:kube-controller-manager", None)?;
    user("scheduler", "system:kube-scheduler", None)?;
    user("proxy", "system:kube-proxy", None)?;
    for (index, node) in (0..).zip(NODES) {
        user(node, &format!("system:node:{node}"), Some("system:nodes"))?;
        authority.server(&format!("{node}-server"), &[node], &[IpAddr::from(addresses.node(index))])?;
    }
    Ok(())
}

/// Starts etcd and the API server, which tries until etcd answers.
pub(crate) fn start_api(home: &Home, programs: &Programs) -> Result<()> {
    let file = |name: &str| home.file(name).display().to_string();
    let etcd = [
        format!("--data-dir={}", file("etcd")),
        "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        // The cluster is thrown away: a crash of the machine may lose it.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    start_one(home, programs, "etcd", &etcd)?;
    start_api_server(home, programs)
}

/// Starts the API server alone, on what etcd holds.
pub(crate) fn start_api_server(home: &Home, programs: &Programs) -> Result<()> {
    start_one(home, programs, API_SERVER, &api_server(home))
}

/// Starts what works by the API server, which has to answer: they give up on it after a while.
pub(crate) fn start_controllers(home: &Home, programs: &Programs) -> Result<()> {
    let file = |name: &str| home.file(name).display().to_string();
    let manager = [
        format!("--kubeconfig={}", file("controller-manager.kubeconfig")),
        format!("--root-ca-file={}", file("pki/ca.crt")),
        format!("--service-account-private-key-file={}", file("pki/service-accounts.key")),
        format!("--cluster-cidr={PODS}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--use-service-account-credentials=true".to_owned(),
        "--leader-elect=false".to_owned(),
        // The nodes' ranges are given with the Node objects.
        "--allocate-node-cidrs=false".to_owned(),
    ];
    start_one(home, programs, "kube-controller-manager", &manager)?;
    let scheduler = [format!("--kubeconfig={}", file("scheduler.kubeconfig")), "--leader-elect=false".to_owned()];
    start_one(home, programs, "kube-scheduler", &scheduler)
}

fn api_server(home: &Home) -> Vec<String> {
    let pki = home.certificates();
    let pair = |name: &str| Pair { certificate: pki.join(format!("{name}.crt")), key: pki.join(format!("{name}.key")) };
    let (server, kubelet) = (pair("apiserver"), pair("apiserver-to-kubelet"));
    let (root, signing) = (pki.join("ca.crt"), pki.join("service-accounts.key"));
    let judging = pki.join("service-accounts.pub");
    let files: [(&str, &Path); 8] = [
        ("client-ca-file", &root),
        ("tls-cert-file", &server.certificate),
        ("tls-private-key-file", &server.key),
        ("kubelet-certificate-authority", &root),
        ("kubelet-client-certificate", &kubelet.certificate),
        ("kubelet-client-key", &kubelet.key),
        ("service-account-key-file", &judging),
        ("service-account-signing-key-file", &signing),
    ];
    let mut arguments: Vec<String> = files.iter().map(|(flag, path)| format!("--{flag}={}", path.display())).collect();
    let address = home.addresses().control();
    arguments.extend([
        format!("--advertise-address={address}"),
        format!("--bind-address={address}"),
        format!("--secure-port={API_PORT}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--service-account-issuer={ISSUER}"),
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        // exec, logs and webhooks: no name of a node resolves here, and no kube-proxy runs here.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--enable-aggregator-routing=true".to_owned(),
    ]);
    arguments
}

/// Starts a program that outlives this one, in the control plane's namespace and cgroup.
fn start_one(home: &Home, programs: &Programs, name: &str, arguments: &[String]) -> Result<()> {
    start_program(home, &programs.path(name), name, arguments)
}

/// Starts this program as what gives addresses to Services.
pub(crate) fn start_balancer(home: &Home) -> Result<()> {
    let own = std::env::current_exe().context("finding this program's file")?;
    start_program(home, &own, "balancer", &["--number".to_owned(), home.number().to_string(), "balance".to_owned()])
}

fn start_program(home: &Home, program: &Path, name: &str, arguments: &[String]) -> Result<()> {
    let log = home.log(name);
    if let Some(parent) = log.parent() {
        fs::create_dir_all(parent)?;
    }
    let output = File::options().create(true).append(true).open(&log);
    let output = output.with_context(|| format!("opening {}", log.display()))?;
    let netns = format!("--net={}", network::netns(home, "control").display());
    let cgroup = cgroup(home, name);
    cgroups::create(&cgroup)?;
    let cgroup = cgroups::unified()?.join(cgroup).join("cgroup.procs");
    let mut command = Command::new("nsenter");
    command.arg(netns).args(["sh", "-c", r#"echo 0 > "$0" && exec "$@""#]).arg(cgroup).arg(program);
    command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
    command.spawn().map(drop).with_context(|| format!("starting {name}"))
}

/// Kills one of the four, as a machine that fails would.
pub(crate) fn kill(home: &Home, name: &str) -> Result<()> {
    cgroups::kill(&cgroups::unified()?.join(cgroup(home, name)))
}

fn cgroup(home: &Home, name: &str) -> String {
    format!("{}/control/{name}", home.name())
}
