//! `cargo xtask conformance`: the Gateway API's own suite against the mesh on a cluster of two nodes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile};
use crate::image::{self, Contents};
use crate::setup::{self, Purpose};
use crate::{kube, repo, step};

/// The suite's Go module, its options and its report.
const SUITE: &str = "tests/kube/conformance";
/// The cluster that is used, beside a person's own and the tests'.
const CLUSTER: &str = "8";
/// An address that the cluster's load balancer gives to who asks for it, far from those that it gives unasked, and one that it has not.
const ADDRESSES: [(&str, &str); 2] = [("usable", "10.232.8.250"), ("unusable", "192.0.2.1")];
/// Where the suite's manifests have their images from.
const REGISTRY: &str = "registry.k8s.io/gateway-api";

/// Runs the suite; `--keep` leaves the cluster up for the next run, `--debug` runs programs that are built quickly, and what follows is
/// the suite's own.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    setup::ensure(&[Purpose::Build, Purpose::Lab, Purpose::Kube])?;
    let (mut keep, mut profile, mut own) = (false, Profile::Release, arguments);
    while let [flag @ ("--keep" | "--debug"), rest @ ..] = own {
        match *flag {
            "--keep" => keep = true,
            _ => profile = Profile::Dev,
        }
        own = rest;
    }
    kube::programs()?;
    build::build(profile)?;
    let suite = suite()?;
    let mut images = image::build_all(profile)?;
    images.extend(echoes()?);
    let down = || step::run("cluster down", &mut kube::cluster(&["--number", CLUSTER, "down"])?);
    let is_up = kubectl(&["version"]).is_ok();
    if !is_up {
        down()?;
        step::run("cluster up", &mut kube::cluster(&["--number", CLUSTER, "up"])?)?;
    }
    let result = prepare(&images).and_then(|()| test(&suite, own));
    if !keep {
        down()?;
    }
    result
}

/// Installs the API's definitions, the mesh and the waypoint.
fn prepare(images: &[PathBuf]) -> Result<()> {
    step::run("images loaded", kube::cluster(&["--number", CLUSTER, "load-image"])?.args(images))?;
    // Retries of routes are in the experimental channel alone.
    let definitions = module("conformance", "sigs.k8s.io/gateway-api")?.join("config/crd/experimental");
    kubectl(&["apply", "--server-side", "-k", &definitions.display().to_string()])?;
    let chart = repo::root().join("charts/mesh");
    let mut helm = program("helm")?;
    helm.args(["upgrade", "--install", "mesh"]).arg(chart);
    helm.args(["--namespace=mesh-system", "--create-namespace", "--wait", "--timeout=120s"]);
    step::run("mesh installed", &mut helm)?;
    // The images' names are those of the run before.
    kubectl(&["-n", "mesh-system", "rollout", "restart", "daemonset,deployment"])?;
    kubectl(&["-n", "mesh-system", "rollout", "status", "deployment/mesh-control", "--timeout=120s"])?;
    kubectl(&["-n", "mesh-system", "rollout", "status", "daemonset/mesh-node", "--timeout=120s"])?;
    kubectl(&["apply", "--server-side", "-f", &repo::root().join(SUITE).join("waypoint.yaml").display().to_string()])?;
    let programmed = ["wait", "--for=condition=Programmed", "--timeout=60s", "gateway/waypoint"];
    kubectl(&[&["-n", "conformance-waypoint"], &programmed[..]].concat())?;
    kubectl(&["-n", "conformance-waypoint", "rollout", "restart", "deployment/waypoint"]).map(drop)
}

fn test(suite: &Path, own: &[&str]) -> Result<()> {
    let directory = repo::root().join(SUITE);
    let mut command = Command::new(suite);
    command.arg("-test.v").arg(format!("-conformance-options-file={}", directory.join("options.yaml").display()));
    command.args(ADDRESSES.map(|(which, address)| format!("-{which}-address={address}")));
    // A report is of the whole.
    if own.is_empty() {
        command.arg(format!("-report-output={}", directory.join("report.yaml").display()));
    }
    command.args(own).env("KUBECONFIG", kubeconfig()).current_dir(&directory);
    let finished = step::watch("conformance", &mut command)?;
    let log = repo::target().join("conformance.log");
    fs::write(&log, &finished.output).with_context(|| format!("writing {}", log.display()))?;
    let verdicts = finished.output.lines().filter(|line| line.trim_start().starts_with("--- "));
    let failed: Vec<&str> = verdicts.filter(|line| line.contains("--- FAIL")).collect();
    if !finished.status.success() {
        bail!("the suite ended with {}; its log is {}\n{}", finished.status, log.display(), failed.join("\n"));
    }
    Ok(())
}

/// The suite as a program.
fn suite() -> Result<PathBuf> {
    let program = kube::directory()?.join("conformance");
    let mut command = go("conformance", &["test", "-c"], &program);
    command.arg(".");
    step::run("the Gateway API's suite", &mut command)?;
    Ok(program)
}

/// The images of the suite's servers: its own, and Istio's, whose client its tests of meshes run.
fn echoes() -> Result<Vec<PathBuf>> {
    let directory = kube::directory()?;
    let build = |module: &str, package: &str, name: &str| -> Result<PathBuf> {
        let program = directory.join(name);
        let mut command = go(module, &["build"], &program);
        command.arg(package);
        step::run(name, &mut command)?;
        Ok(program)
    };
    let basic = build("conformance", "sigs.k8s.io/gateway-api/conformance/echo-basic", "echo-basic")?;
    let server = build("echo", "istio.io/istio/pkg/test/echo/cmd/server", "server")?;
    let client = build("echo", "istio.io/istio/pkg/test/echo/cmd/client", "client")?;
    let istio = module("echo", "istio.io/istio")?.join("tests/testdata/certs");
    let archive = |name: &str| repo::target().join("images").join(format!("{name}.tar"));
    let (of_basic, of_advanced) = (archive("echo-basic"), archive("echo-advanced"));
    image::write(&tags("echo-basic")?, &Contents { programs: &[basic], files: &[] }, &of_basic)?;
    let files = [(istio.join("cert.crt"), "cert.crt"), (istio.join("cert.key"), "cert.key")];
    let contents = Contents { programs: &[server, client], files: &files };
    image::write(&tags("echo-advanced")?, &contents, &of_advanced)?;
    Ok(vec![of_basic, of_advanced])
}

/// The names by which the suite's manifests ask for an image.
fn tags(image: &str) -> Result<Vec<String>> {
    let suite = module("conformance", "sigs.k8s.io/gateway-api/conformance")?;
    let wanted = format!("{REGISTRY}/{image}:");
    let mut found = BTreeSet::new();
    for folder in ["base", "mesh", "tests", "tests/mesh"].map(|folder| suite.join(folder)) {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "yaml") {
                let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
                let words = text.split_whitespace().filter(|word| word.starts_with(&wanted));
                found.extend(words.map(str::to_owned));
            }
        }
    }
    anyhow::ensure!(!found.is_empty(), "no manifest in {} names {wanted}", suite.display());
    Ok(found.into_iter().collect())
}

/// Where a module's sources are.
fn module(of: &str, path: &str) -> Result<PathBuf> {
    let mut command = Command::new("go");
    command.args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", path]);
    let output = command.current_dir(repo::root().join("tests/kube").join(of)).output().context("starting go")?;
    let directory = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    anyhow::ensure!(output.status.success() && !directory.is_empty(), "{path} is not there: {output:?}");
    Ok(PathBuf::from(directory))
}

fn go(module: &str, verb: &[&str], program: &Path) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "10", "go"]).args(verb);
    command.args(["-mod=readonly", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags=-s -w", "-o"]).arg(program);
    command.current_dir(repo::root().join("tests/kube").join(module)).env("CGO_ENABLED", "0");
    command
}

fn program(name: &str) -> Result<Command> {
    let mut command = Command::new(kube::directory()?.join(name));
    command.env("KUBECONFIG", kubeconfig());
    Ok(command)
}

fn kubeconfig() -> PathBuf {
    PathBuf::from("/var/lib/mesh-kube").join(CLUSTER).join("admin.kubeconfig")
}

fn kubectl(arguments: &[&str]) -> Result<String> {
    let output = program("kubectl")?.args(arguments).output().context("starting kubectl")?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "`kubectl {}`: {error}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
