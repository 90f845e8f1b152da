//! Where a program can be run: a pod, a node, a machine outside.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::binaries;
use crate::process::{Output, Process};
use crate::requirements::{find_in_path, search_path};

/// How long [`Place::exec`] lets a program run.
const EXEC_LIMIT: Duration = Duration::from_secs(60);

/// What a program needs to be run in a place.
#[derive(Clone, Debug)]
pub struct Context {
    /// The network namespace's file.
    pub(crate) netns: PathBuf,
    /// The mount namespace's file, where it is not this process's own.
    pub(crate) mounts: Option<PathBuf>,
    /// The cgroup to join before the program starts.
    pub(crate) cgroup: PathBuf,
    pub(crate) env: Vec<(String, String)>,
    /// Where logs go.
    pub(crate) logs: PathBuf,
    /// What log files are named after.
    pub(crate) name: String,
    /// The program goes on when this process ends.
    pub(crate) outlives_owner: bool,
}

impl Context {
    /// The command that joins the cgroup, then the namespaces, then becomes the program: no process in between stays.
    fn command(&self, argv: &[&str]) -> Result<Command> {
        let mut command = Command::new("sh");
        command
            .env_clear()
            .env("PATH", path()?)
            .env("HOME", "/root")
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command.args(["-c", "echo 0 > \"$0\" && exec \"$@\""]).arg(self.cgroup.join("cgroup.procs"));
        if !self.outlives_owner {
            command.args(["setpriv", "--pdeathsig", "KILL"]);
        }
        command.arg("nsenter").arg(joined("--net=", &self.netns));
        if let Some(mounts) = &self.mounts {
            command.arg(joined("--mount=", mounts));
        }
        command.arg("--").args(argv);
        Ok(command)
    }

    pub(crate) fn start(&self, argv: &[&str]) -> Result<Process> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let program = argv.first().context("a command needs a program")?;
        if program.starts_with("mesh-") && find_in_path(program).is_none() {
            binaries::binary(program)?;
        }
        let base = program.rsplit('/').next().unwrap_or(program);
        let log = self.logs.join(format!("{}.{base}.{}", self.name, NUMBER.fetch_add(1, Ordering::Relaxed)));
        Process::start(format!("{} (in {})", argv.join(" "), self.name), self.command(argv)?, &log, self.outlives_owner)
    }
}

fn joined(option: &str, path: &std::path::Path) -> std::ffi::OsString {
    let mut whole = std::ffi::OsString::from(option);
    whole.push(path);
    whole
}

/// The search path in places: the workspace's own programs first.
fn path() -> Result<String> {
    let own: Vec<_> = binaries::directories()?.iter().map(|dir| dir.display().to_string()).collect();
    Ok(format!("{}:{}", own.join(":"), search_path()))
}

/// Something with a network namespace in which programs run. Programs of this workspace are found by their names.
pub trait Place {
    /// How to run a program here.
    fn context(&self) -> Result<Context>;

    /// The addresses here, IPv4 first.
    fn addresses(&self) -> Vec<IpAddr>;

    /// Runs a program to its end, at most for 60 s.
    ///
    /// # Errors
    /// Fails when it cannot be started or takes too long; how it ended is in the output.
    fn exec(&self, argv: &[&str]) -> Result<Output> {
        self.exec_within(EXEC_LIMIT, argv)
    }

    /// Runs a program to its end, at most for `limit`, after which it is killed.
    fn exec_within(&self, limit: Duration, argv: &[&str]) -> Result<Output> {
        let context = Context { outlives_owner: false, ..self.context()? };
        let mut process = context.start(argv)?;
        process.close_stdin();
        let output = process.wait(limit);
        process.remove_logs();
        output
    }

    /// Starts a program. It is killed when the [`Process`] is dropped, with the pod's sandbox, and with the lab.
    fn spawn(&self, argv: &[&str]) -> Result<Process> {
        self.context()?.start(argv)
    }

    /// The IPv4 address.
    fn ipv4(&self) -> IpAddr {
        self.addresses().into_iter().find(IpAddr::is_ipv4).unwrap_or(IpAddr::from([0, 0, 0, 0]))
    }

    /// The IPv6 address.
    fn ipv6(&self) -> IpAddr {
        self.addresses().into_iter().find(IpAddr::is_ipv6).unwrap_or(IpAddr::from([0u16; 8]))
    }
}
