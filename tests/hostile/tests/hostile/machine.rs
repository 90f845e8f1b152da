//! Machines and arguments that the daemon cannot run with: one sentence, an exit code, nothing attached.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{DaemonOptions, Lab, Output, Place as _, binary};

const CANNOT_RUN: i32 = 2;
const LIMIT: Duration = Duration::from_secs(20);

/// Runs `$@` in a mount namespace of its own, with a BPF file system of its own at $BPF, after what the case does to the
/// machine; then says which links stayed pinned.
const SCRIPT: &str = r#"
mount -t bpf bpf "$BPF" || exit 99
eval "$PREPARE" || exit 98
$AS "$@"
code=$?
find "$BPF" -path '*/links/*' | sed 's/^/still attached: /'
exit $code
"#;

struct Machine {
    lab: Lab,
    program: String,
    bpf: PathBuf,
}

/// What differs from a machine and arguments that are fine.
#[derive(Default)]
struct Case<'a> {
    /// Shell commands, run as root in a mount namespace of the case's own.
    prepare: &'a str,
    /// A program and options before the daemon.
    through: &'a str,
    /// Arguments that replace or follow the good ones.
    args: &'a [(&'a str, &'a str)],
    /// Part of what it says.
    says: &'a str,
}

impl Machine {
    fn new() -> Result<Self> {
        let lab = Lab::builder().node("node-a").build()?;
        let bpf = lab.home().join("private-bpf");
        fs::create_dir(&bpf)?;
        Ok(Self { program: binary("mesh-node")?.display().to_string(), lab, bpf })
    }

    fn start(&self, case: &Case<'_>) -> Result<Output> {
        let bpf = self.bpf.display().to_string();
        let mut args = vec![
            ("--node", "node-a".to_owned()),
            ("--config", self.lab.config_dir().display().to_string()),
            ("--ca", self.lab.ca_dir()?.display().to_string()),
            ("--bpf-dir", format!("{bpf}/mesh")),
            ("--admin-socket", self.lab.home().join("own.sock").display().to_string()),
        ];
        for (flag, value) in case.args {
            args.retain(|(known, _)| known != flag);
            args.push((flag, (*value).to_owned()));
        }
        let variables = [format!("BPF={bpf}"), format!("PREPARE={}", case.prepare), format!("AS={}", case.through)];
        let mut argv = vec!["env"];
        argv.extend(variables.iter().map(String::as_str));
        argv.extend(["unshare", "--mount", "sh", "-c", SCRIPT, "sh", &self.program]);
        argv.extend(args.iter().flat_map(|(flag, value)| [*flag, value.as_str()]).filter(|it| !it.is_empty()));
        self.lab.node("node-a")?.exec_within(LIMIT, &argv)
    }

    fn refuses(&self, case: &Case<'_>) -> Result<()> {
        let output = self.start(case)?;
        let told = || format!("{:?}: {output}", case.says);
        ensure!(output.code == Some(CANNOT_RUN), "code should be {CANNOT_RUN} for {}", told());
        ensure!(output.stderr.contains(case.says), "{}", told());
        ensure!(!output.stdout.contains("still attached"), "{}", told());
        let own = output.stderr.starts_with("mesh-node: ");
        ensure!(!own || output.stderr.trim_end().lines().count() == 1, "more than a sentence: {}", told());
        Ok(())
    }
}

#[test]
fn a_machine_that_lacks_something_is_told_what_and_nothing_is_attached() -> Result<()> {
    let machine = Machine::new()?;
    let fake_proc = machine.lab.home().join("fake-proc");
    fs::create_dir_all(fake_proc.join("sys/kernel"))?;
    fs::write(fake_proc.join("sys/kernel/osrelease"), "5.10.0-30-amd64\n")?;
    let fake_proc = fake_proc.display().to_string();
    let saying = |says| Case { says, ..Case::default() };
    for case in [
        Case { through: "setpriv --reuid 65534 --regid 65534 --clear-groups", ..saying("must run as root") },
        Case { through: "setpriv --bounding-set -all --inh-caps -all", ..saying("lacks CAP_SYS_ADMIN") },
        Case {
            args: &[("--proc", &fake_proc)],
            ..saying("kernel 5.10.0-30-amd64 is too old: the data path needs Linux 5.15")
        },
        Case { args: &[("--proc", "/nonexistent")], ..saying("cannot read /nonexistent/sys/kernel/osrelease") },
        Case { prepare: "mount -t tmpfs none /sys/kernel/btf", ..saying("no BTF at /sys/kernel/btf/vmlinux") },
        Case {
            prepare: "umount -l $(awk '$3 == \"cgroup2\" {print $2}' /proc/self/mounts)",
            ..saying("no cgroup v2 hierarchy is mounted")
        },
        Case { args: &[("--cgroup-root", "/run")], ..saying("/run is not in a cgroup v2 hierarchy") },
        Case { args: &[("--cgroup-root", "/nonexistent")], ..saying("/nonexistent is not in a cgroup v2 hierarchy") },
        Case { args: &[("--bpf-dir", "/run/nothing")], ..saying("/run is not on a BPF file system") },
        Case { prepare: "mount -o remount,ro \"$BPF\"", ..saying("is the BPF file system writable?") },
    ] {
        machine.refuses(&case)?;
    }
    Ok(())
}

#[test]
fn arguments_that_cannot_be_met_are_refused_and_nothing_is_attached() -> Result<()> {
    let machine = Machine::new()?;
    let broken = machine.lab.home().join("broken-ca");
    copy_ca(&machine.lab, &broken)?;
    fs::write(broken.join("ca-key.pem"), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")?;
    let strange = machine.lab.home().join("strange-ca");
    copy_ca(&machine.lab, &strange)?;
    fs::copy(machine.lab.ca_dir_of("other", "other.test")?.join("ca-key.pem"), strange.join("ca-key.pem"))?;
    let long = format!("/run/{}/admin.sock", "long".repeat(30));
    let program = machine.program.clone();
    let (broken, strange) = (broken.display().to_string(), strange.display().to_string());
    let saying = |says| Case { says, ..Case::default() };
    for case in [
        Case { args: &[("--ca", "/nonexistent")], ..saying("--ca: cannot read /nonexistent/ca-cert.pem") },
        Case { args: &[("--admin-socket", "/proc/admin.sock")], ..saying("--admin-socket: cannot listen on /proc") },
        Case { args: &[("--admin-socket", &program)], ..saying("is there and is no socket") },
        Case { args: &[("--admin-socket", &long)], ..saying("name a path of at most 100 bytes") },
        Case { args: &[("--ca", &broken)], ..saying("--ca: ca-key.pem") },
        Case { args: &[("--ca", &strange)], ..saying("--ca: ca-cert.pem and ca-key.pem do not belong together") },
        Case { args: &[("--config", "/nonexistent")], ..saying("--config: ") },
        Case { args: &[("--trust-domain", "Not A Domain")], ..saying("'--trust-domain <NAME>': trust domain") },
        Case { args: &[("--log", "access=?")], ..saying("--log: access=?: ") },
        Case { args: &[("--log", "inof")], ..saying("--log: \"inof\" is no level") },
        Case { args: &[("--workers", "0")], ..saying("--workers") },
        Case { args: &[("--workers", "many")], ..saying("--workers") },
        Case { args: &[("--metrics-addr", "everywhere")], ..saying("--metrics-addr") },
        Case { args: &[("--frobnicate", "")], ..saying("--frobnicate") },
        Case { args: &[("--node", "")], ..saying("--node") },
        Case { args: &[("--metrics-addr", "192.0.2.1:15020")], ..saying("pass another address with --metrics-addr") },
    ] {
        machine.refuses(&case)?;
    }
    Ok(())
}

/// The hooks that a node's daemons have left in force.
fn links(lab: &Lab) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for version in fs::read_dir(lab.home().join("bpf.node-a/mesh"))? {
        for link in fs::read_dir(version?.path().join("links"))? {
            found.push(link?.path());
        }
    }
    found.sort();
    ensure!(!found.is_empty(), "no daemon has pinned a link");
    Ok(found)
}

/// Starts a daemon that is to fail and returns what it says.
fn failing_start(lab: &Lab, options: DaemonOptions) -> Result<String> {
    let mut daemon = lab.start_daemon("node-a", DaemonOptions { ready_within: None, ..options })?;
    let output = daemon.process().wait(LIMIT)?;
    ensure!(output.code == Some(CANNOT_RUN), "{output}");
    Ok(output.stderr)
}

#[test]
fn a_start_that_fails_leaves_the_last_daemons_hooks_as_they_are() -> Result<()> {
    let lab = Lab::builder().node("node-a").build()?;
    lab.start_daemon("node-a", DaemonOptions::default())?.kill9()?;
    let before = links(&lab)?;
    failing_start(&lab, DaemonOptions { ca: Some("/nonexistent".into()), ..DaemonOptions::default() })?;
    ensure!(links(&lab)? == before, "the hooks have changed");
    Ok(())
}

/// A daemon that replaces the hooks and then cannot go on would leave a node whose running daemon's sockets are unknown
/// to the kernel. With a socket of its own it does not find the first one, which would hand over.
#[test]
fn a_second_daemon_is_refused_and_does_not_touch_the_first_ones_hooks() -> Result<()> {
    let lab = Lab::builder().node("node-a").build()?;
    let first = lab.start_daemon("node-a", DaemonOptions::default())?;
    let before = links(&lab)?;
    let own = lab.home().join("own.sock").display().to_string();
    let args = vec!["--admin-socket".to_owned(), own];
    let said = failing_start(&lab, DaemonOptions { args, ..DaemonOptions::default() })?;
    ensure!(said.contains("cannot serve metrics on [::]:15020"), "{said}");
    ensure!(links(&lab)? == before && first.is_ready(), "the first daemon is hurt");
    Ok(())
}

fn copy_ca(lab: &Lab, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for file in ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"] {
        fs::copy(lab.ca_dir()?.join(file), to.join(file)).with_context(|| file.to_owned())?;
    }
    Ok(())
}
