//! Programs that the lab runs, with what they print kept in files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::wait::{PATIENCE, wait_until};

/// How a program ended and what it printed.
#[derive(Clone, Debug)]
pub struct Output {
    program: String,
    /// The exit code; none when a signal ended the program.
    pub code: Option<i32>,
    /// The signal that ended the program.
    pub signal: Option<i32>,
    /// What it wrote to standard output, with what is not UTF-8 replaced.
    pub stdout: String,
    /// What it wrote to standard error, likewise.
    pub stderr: String,
}

impl Output {
    /// Standard output, when the program ended with 0.
    ///
    /// # Errors
    /// Fails with the code and both outputs otherwise.
    pub fn success(&self) -> Result<&str> {
        if self.code == Some(0) {
            return Ok(&self.stdout);
        }
        bail!("{self}")
    }

    /// Standard output as JSON, however the program ended.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(self.stdout.trim()).with_context(|| format!("no JSON: {self}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "`{}` ended with {code}", self.program)?,
            (None, signal) => write!(f, "`{}` was ended by signal {}", self.program, signal.unwrap_or_default())?,
        }
        write!(f, "; stdout: {:?}; stderr: {:?}", self.stdout.trim_end(), self.stderr.trim_end())
    }
}

/// A running program. Dropping it kills it and its process group, unless the lab is to be kept.
#[derive(Debug)]
#[must_use = "dropping a process kills it"]
pub struct Process {
    program: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    outlives_owner: bool,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with its output going to `<log>.out` and `<log>.err`.
    pub(crate) fn start(program: String, mut command: Command, log: &Path, outlives_owner: bool) -> Result<Self> {
        let (stdout, stderr) = (with_ending(log, "out"), with_ending(log, "err"));
        let input = if outlives_owner { Stdio::null() } else { Stdio::piped() };
        command.stdin(input).stdout(log_file(&stdout)?).stderr(log_file(&stderr)?).process_group(0);
        let child = spawn(command).with_context(|| format!("starting `{program}`"))?;
        Ok(Self { program, child, stdout, stderr, outlives_owner, status: None })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Both outputs so far: standard output, then standard error.
    pub fn log(&self) -> String {
        self.stdout() + &self.stderr()
    }

    /// The files that hold standard output and standard error.
    pub fn log_files(&self) -> [&Path; 2] {
        [&self.stdout, &self.stderr]
    }

    /// Writes a line to the program's standard input.
    pub fn write_line(&mut self, line: &str) -> Result<()> {
        let program = &self.program;
        let input = self.child.stdin.as_mut().with_context(|| format!("`{program}` has no open standard input"))?;
        writeln!(input, "{line}").with_context(|| format!("writing to `{program}`"))
    }

    /// Closes the program's standard input.
    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// Waits for a line, of either output, that contains `needle`, and returns it.
    ///
    /// # Errors
    /// Fails with the log when `limit` passes, or when the program ends without having printed it.
    pub fn wait_for_line(&mut self, needle: &str, limit: Duration) -> Result<String> {
        let what = format!("`{}` to print {needle:?}", self.program);
        let found = wait_until(&what, limit, || {
            let ended = self.status()?;
            let found = self.log().lines().find(|line| line.contains(needle)).map(String::from);
            match (found, ended) {
                (None, Some(status)) => bail!("it ended with {status}"),
                (found, _) => Ok(found),
            }
        });
        found.with_context(|| format!("waiting for {what}; its log: {}", self.log()))
    }

    /// How it ended, or none while it runs.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().with_context(|| format!("asking for the end of `{}`", self.program))?;
        }
        Ok(self.status)
    }

    /// Waits for the program's end; kills it and fails when `limit` passes.
    pub fn wait(&mut self, limit: Duration) -> Result<Output> {
        match wait_until(&format!("`{}` to end", self.program), limit, || self.status()) {
            Ok(status) => Ok(self.output(status)),
            Err(error) => {
                self.kill()?;
                Err(error.context(format!("killed `{}`; its log: {}", self.program, self.log())))
            }
        }
    }

    /// Sends a signal to the process alone.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.status()?.is_some() {
            bail!("`{}` has ended already", self.program);
        }
        kill(Pid::from_raw(self.id().cast_signed()), signal)
            .with_context(|| format!("sending {signal} to `{}`", self.program))
    }

    /// Kills the process and its group with SIGKILL and waits for its end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status()? {
            return Ok(status);
        }
        // The group may be empty of others or gone; the child itself is not reaped yet, so its id is still its own.
        let _ = killpg(Pid::from_raw(self.id().cast_signed()), Signal::SIGKILL);
        let _ = self.child.kill();
        wait_until(&format!("`{}` to die", self.program), PATIENCE, || self.status())
    }

    fn output(&self, status: ExitStatus) -> Output {
        Output {
            program: self.program.clone(),
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    /// Removes the files of a program whose output was taken.
    pub(crate) fn remove_logs(&self) {
        let _ = fs::remove_file(&self.stdout);
        let _ = fs::remove_file(&self.stderr);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.outlives_owner {
            let _ = self.kill();
        }
    }
}

fn with_ending(log: &Path, ending: &str) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    PathBuf::from(path)
}

fn log_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("opening the log {}", path.display()))
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

type Job = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts a program from a thread that lives as long as this process: children get the parent-death signal when the
/// *thread* that started them ends (prctl(2)), and a test's thread ends before the process does.
fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in queue {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(jobs)
    });
    let (reply, answer) = mpsc::sync_channel(1);
    let gone = |_| anyhow!("the thread that starts programs is gone");
    spawner.lock().unwrap_or_else(PoisonError::into_inner).send((command, reply)).map_err(|_| gone(()))?;
    Ok(answer.recv().map_err(|_| gone(()))??)
}

/// Runs a program of the system (not one in a pod) with `input` and waits; fails with its output unless it ends with 0.
pub(crate) fn run(command: &mut Command, input: &str) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that fails early closes its input; its own message says more.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for {name}"))?;
    if !output.status.success() {
        let printed = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{name} ended with {}: {} {}; its input was:\n{input}",
            output.status,
            printed.trim(),
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
    Ok(())
}
