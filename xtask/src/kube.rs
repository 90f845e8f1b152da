//! `cargo xtask kube`: a Kubernetes of two nodes on this machine. Its programs are built from their published sources.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile};
use crate::setup::{self, Purpose};
use crate::test::Tally;
use crate::{image, repo, step};

/// As tests/kube/kubernetes/go.mod has it.
const VERSION: &str = "v1.36.3";
/// The release whose definitions of the Gateway API are installed.
const GATEWAY_API: &str = "sigs.k8s.io/gateway-api@v1.6.3";
/// The programs of the second node's containerd, which has NRI; the first node's is Debian's.
const CONTAINERD: [&str; 3] = ["containerd", "containerd-shim-runc-v2", "ctr"];
/// Its own name, and that by which the Gateway API's suite asks for it.
const COREDNS: [&str; 2] = ["mesh.dev/coredns:1", "registry.k8s.io/coredns/coredns:v1.12.2"];
/// Names of the one program, which acts as what it is started as.
const NAMES: [&str; 7] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"];
/// Names where the programs are.
pub(crate) const PROGRAMS_VARIABLE: &str = "MESH_KUBE_PROGRAMS";
/// What starts and removes a cluster.
const CLUSTER: &str = "mesh-kube-cluster";
/// The cluster of the tests, so that a person's own stays.
pub(crate) const TESTS: &str = "9";
/// Why root is asked for.
pub(crate) const WHY: &str = "Kubernetes' nodes are namespaces, mounts and cgroups";

pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["build"] => {
            setup::ensure(&[Purpose::Build, Purpose::Kube])?;
            programs()?;
            build::build(Profile::Release)?;
            image::build_all(Profile::Release).map(drop)
        }
        ["test"] => {
            setup::ensure(&[Purpose::Build, Purpose::Lab, Purpose::Kube])?;
            build::build(Profile::Release)?;
            let tally = test(None)?.not_nothing()?;
            anyhow::ensure!(tally.failed == 0, "{tally}");
            Ok(())
        }
        ["up", ..] => {
            setup::ensure(&[Purpose::Build, Purpose::Lab, Purpose::Kube])?;
            programs()?;
            become_cluster(arguments)
        }
        ["down" | "status" | "kubeconfig" | "load-image", ..] => become_cluster(arguments),
        other => bail!("no command `kube {}`: see `cargo xtask help`", other.join(" ")),
    }
}

/// Starts a cluster, runs the tests of tests/kube on it, and removes it.
pub(crate) fn test(runner: Option<&str>) -> Result<Tally> {
    programs()?;
    let images = image::build_all(Profile::Release)?;
    let down = || step::run("cluster down", &mut cluster(&["--number", TESTS, "down"])?);
    down()?;
    let result = step::run("cluster up", &mut cluster(&["--number", TESTS, "up"])?).and_then(|_| {
        let mut load = cluster(&["--number", TESTS, "load-image"])?;
        step::run("images loaded", load.args(&images))?;
        let mut command = step::cargo();
        // One cluster, one mesh on it: one test after the other.
        command.args(["test", "--no-fail-fast", "--package", CLUSTER]).env(PROGRAMS_VARIABLE, directory()?);
        command.env("MESH_KUBE_NUMBER", TESTS).env(crate::test::PROGRAMS_VARIABLE, Profile::Release.folder());
        if let Some(runner) = runner {
            crate::test::through(&mut command, runner);
        }
        command.args(["--", "--test-threads=1"]);
        crate::test::count("tests on Kubernetes", &mut command)
    });
    down()?;
    result
}

fn become_cluster(arguments: &[&str]) -> Result<()> {
    let mut command = cluster(arguments)?;
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {CLUSTER}"))
}

/// The program that starts and removes a cluster, with root's rights.
pub(crate) fn cluster(arguments: &[&str]) -> Result<Command> {
    let mut build = step::cargo();
    build.args(["build", "--package", CLUSTER, "--bins"]);
    step::run(CLUSTER, &mut build)?;
    let mut command = step::as_root(WHY, Profile::Dev.folder().join(CLUSTER))?;
    command.args(arguments).env(PROGRAMS_VARIABLE, directory()?).current_dir(repo::root());
    Ok(command)
}

/// Where the programs are kept: outside the repository, since they take long to build and change with their version alone.
pub(crate) fn directory() -> Result<PathBuf> {
    Ok(repo::cache()?.join("kube").join(VERSION))
}

/// Builds what of Kubernetes' programs is missing or older than its sources here.
pub(crate) fn programs() -> Result<()> {
    let directory = directory()?;
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    go_build("Kubernetes", ".", &directory.join("kubernetes"))?;
    go_build("helm", "helm.sh/helm/v3/cmd/helm", &directory.join("helm"))?;
    let pause = directory.join("pause");
    if go_build("pause", "./pause", &pause)? || !directory.join("pause.tar").exists() {
        image::build("mesh.dev/pause:1", &[pause], &directory.join("pause.tar"))?;
    }
    let dns = directory.join("coredns");
    if go_build_in("tests/kube/dns", "CoreDNS", ".", &dns)? || !directory.join("coredns.tar").exists() {
        let contents = image::Contents { programs: &[dns], files: &[] };
        image::write(&COREDNS.map(str::to_owned), &contents, &directory.join("coredns.tar"))?;
    }
    for program in CONTAINERD {
        let package = format!("github.com/containerd/containerd/v2/cmd/{program}");
        let place = directory.join("containerd-2").join(program);
        go_build_in("tests/kube/containerd", &format!("{program} 2 for"), &package, &place)?;
    }
    gateway_api(&directory.join("gateway-api"))?;
    for name in NAMES.map(|name| directory.join(name)).iter().filter(|name| !name.exists()) {
        symlink("kubernetes", name).with_context(|| format!("making {}", name.display()))?;
    }
    Ok(())
}

/// The Gateway API's own definitions, from its Go module.
fn gateway_api(place: &Path) -> Result<()> {
    if place.exists() {
        return Ok(());
    }
    let mut download = Command::new("go");
    // Outside any module: it is nobody's dependency.
    download.args(["mod", "download", "-json", GATEWAY_API]).current_dir("/");
    let output = download.output().context("starting go")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told = text.lines().find_map(|line| line.trim().strip_prefix("\"Dir\": \"")?.split('"').next());
    let Some(module) = told.filter(|_| output.status.success()) else {
        bail!("{GATEWAY_API} cannot be had: {text}{}", String::from_utf8_lossy(&output.stderr));
    };
    let draft = place.with_extension("draft");
    fs::create_dir_all(&draft).with_context(|| format!("making {}", draft.display()))?;
    let definitions = Path::new(module).join("config/crd/standard");
    for entry in fs::read_dir(&definitions).with_context(|| format!("reading {}", definitions.display()))? {
        let from = entry?.path();
        let to = draft.join(from.file_name().unwrap_or_default());
        let text = fs::read(&from).with_context(|| format!("reading {}", from.display()))?;
        fs::write(&to, text).with_context(|| format!("writing {}", to.display()))?;
    }
    fs::rename(&draft, place).with_context(|| format!("moving {}", draft.display()))
}

fn go_build(label: &str, package: &str, program: &Path) -> Result<bool> {
    go_build_in("tests/kube/kubernetes", label, package, program)
}

/// Builds one program unless it is newer than the module; whether it was built.
fn go_build_in(module: &str, label: &str, package: &str, program: &Path) -> Result<bool> {
    let module = repo::root().join(module);
    let changed = |file: &Path| fs::metadata(file).and_then(|metadata| metadata.modified());
    let sources = ["go.mod", "go.sum", "main.go", "pause/main.go"].map(|file| module.join(file));
    let built = changed(program).ok();
    let mut there = sources.iter().filter_map(|source| changed(source).ok());
    if built.is_some_and(|built| there.all(|changed| changed < built)) {
        return Ok(false);
    }
    let mut command = Command::new("nice");
    command.args(["-n", "10", "go", "build", "-mod=readonly", "-trimpath", "-gcflags=all=-dwarf=false"]);
    command.arg("-ldflags").arg(stamped()).arg("-o").arg(program).arg(package);
    command.current_dir(module).env("CGO_ENABLED", "0");
    step::run(&format!("{label} {VERSION}"), &mut command)?;
    Ok(true)
}

/// The version by which clients know the server, and what they support.
fn stamped() -> String {
    let mut parts = VERSION.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut flags = String::from("-s -w");
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in [("gitVersion", VERSION), ("gitMajor", major), ("gitMinor", minor)] {
            flags += &format!(" -X {package}.{name}={value}");
        }
    }
    // Helm compares a chart's kubeVersion with this where it asks no cluster.
    for package in ["helm.sh/helm/v3/pkg/chartutil", "helm.sh/helm/v3/pkg/lint/rules"] {
        flags += &format!(" -X {package}.k8sVersionMajor={major} -X {package}.k8sVersionMinor={minor}");
    }
    flags
}
