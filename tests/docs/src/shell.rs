//! A person's shell, in which the commands of a page are run.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::{Block, root};

/// What of the repository a person has at hand.
const AT_HAND: [&str; 2] = ["docs", "charts"];
/// Of its directory, where a person may put commands.
const COMMANDS: &str = "bin";
/// How long a block may take.
const LONGEST: Duration = Duration::from_secs(360);

/// A shell in a directory of its own. What was assigned in it is assigned again before each later block.
#[derive(Debug)]
pub struct Shell {
    directory: tempfile::TempDir,
    path: Vec<PathBuf>,
    environment: Vec<(String, OsString)>,
    stand_ins: Vec<(String, String)>,
    assigned: String,
}

/// What came of a block.
#[derive(Debug)]
pub struct Outcome {
    /// Whether it ended as the page says.
    pub as_said: bool,
    /// On standard output.
    pub printed: String,
    /// On standard error, and how it ended.
    pub said: String,
}

impl Shell {
    /// With these directories before those of PATH.
    ///
    /// # Errors
    /// When no directory can be made.
    pub fn new(path: &[&Path]) -> Result<Self> {
        let directory = tempfile::tempdir().context("making a directory")?;
        fs::create_dir(directory.path().join(COMMANDS)).context("making a directory")?;
        for name in AT_HAND {
            symlink(root().canonicalize()?.join(name), directory.path().join(name)).context("making a link")?;
        }
        let own = directory.path().join(COMMANDS);
        let path = path.iter().map(|path| path.to_path_buf()).chain([own]).collect();
        let (environment, stand_ins) = (Vec::new(), Vec::new());
        Ok(Self { directory, path, environment, stand_ins, assigned: String::new() })
    }

    /// With a variable of the environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Where pages say `said`, takes `real`.
    #[must_use]
    pub fn stand_in(mut self, said: &str, real: &str) -> Self {
        self.stand_ins.push((said.to_owned(), real.to_owned()));
        self
    }

    /// Where it is; `bin` in it is in its PATH.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a block once.
    ///
    /// # Errors
    /// When there is no shell, or the block takes longer than six minutes.
    pub fn run(&mut self, block: &Block<'_>) -> Result<Outcome> {
        let body = self.stand_ins.iter().fold(block.body.clone(), |body, (said, real)| body.replace(said, real));
        let outcome = self.script(&body, block.exit_code(), block.word("until"))?;
        for line in body.lines().filter(|line| outcome.as_said && is_assignment(line)) {
            self.assigned.extend([line, "\n"]);
        }
        Ok(outcome)
    }

    /// Runs what no page says.
    ///
    /// # Errors
    /// With what it says when it fails.
    pub fn ends_well(&self, script: &str) -> Result<()> {
        let outcome = self.script(script, 0, None)?;
        if !outcome.as_said {
            bail!("`{script}`: {}{}", outcome.printed, outcome.said);
        }
        Ok(())
    }

    /// Starts what goes on beside the page, until that is dropped.
    ///
    /// # Errors
    /// When there is no shell.
    pub fn start(&self, script: &str) -> Result<Running> {
        let mut command = self.command(script)?;
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Running).context("starting bash")
    }

    fn script(&self, body: &str, exit_code: i32, until: Option<&str>) -> Result<Outcome> {
        let mut command = self.command(&format!("set -eo pipefail\n{}{body}", self.assigned))?;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("starting bash")?;
        let lines = lines_of(&mut child)?;
        let mut stderr = child.stderr.take().context("no standard error")?;
        let said = thread::spawn(move || {
            let mut said = Vec::new();
            // What cannot be read was not said.
            let _ = stderr.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        let group = Pid::from_raw(i32::try_from(child.id())?);
        let (printed, interrupted) = read(&lines, until, group)?;
        let status = child.wait().context("waiting for bash")?;
        let as_said = match until {
            Some(_) => interrupted && was_interrupted_well(status),
            None => status.code() == Some(exit_code),
        };
        let said = said.join().unwrap_or_default();
        Ok(Outcome { as_said, printed, said: format!("{said}({status})\n") })
    }

    fn command(&self, script: &str) -> Result<Command> {
        let outer = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(self.path.iter().cloned().chain(std::env::split_paths(&outer)))?;
        // Who was started in the background ignores interrupts, and so do those whom it starts.
        let mut command = Command::new("env");
        command
            .args(["--default-signal=INT", "bash", "-c", script])
            .current_dir(self.directory())
            .env_remove("MESH_ADMIN_SOCKET")
            .env("PATH", path);
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).process_group(0);
        command.stdin(Stdio::null());
        Ok(command)
    }
}

/// What runs beside a page; killed when dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.0.id()) {
            // It may have ended by itself.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.0.wait();
    }
}

/// The lines of its standard output, as they come.
fn lines_of(child: &mut Child) -> Result<Receiver<String>> {
    let stdout = BufReader::new(child.stdout.take().context("no standard output")?);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in stdout.split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// All that is printed, and whether the text was among it, whereupon the group is interrupted.
fn read(lines: &Receiver<String>, until: Option<&str>, group: Pid) -> Result<(String, bool)> {
    let (began, mut printed, mut interrupted) = (Instant::now(), String::new(), false);
    loop {
        match lines.recv_timeout(LONGEST.saturating_sub(began.elapsed())) {
            Ok(line) => {
                printed.extend([&line, "\n"]);
                if !interrupted && until.is_some_and(|text| line.contains(text)) {
                    killpg(group, Signal::SIGINT).context("interrupting it")?;
                    interrupted = true;
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok((printed, interrupted)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                killpg(group, Signal::SIGKILL).context("killing it")?;
                bail!("it goes on after {} s, and printed:\n{printed}", LONGEST.as_secs());
            }
        }
    }
}

/// A program that has nothing to put away ends by the signal itself, or says so by its code as a shell does.
fn was_interrupted_well(status: ExitStatus) -> bool {
    const BY_INTERRUPT: i32 = 128 + Signal::SIGINT as i32;
    status.signal() == Some(Signal::SIGINT as i32) || matches!(status.code(), Some(0 | BY_INTERRUPT))
}

fn is_assignment(line: &str) -> bool {
    line.split_once('=').is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(shell: &mut Shell, info: &str, body: &str) -> Outcome {
        shell.run(&Block { info: info.split_whitespace().collect(), body: body.to_owned() }).unwrap()
    }

    #[test]
    fn what_was_assigned_stays_and_codes_are_those_of_the_page() {
        let mut shell = Shell::new(&[]).unwrap().stand_in("a.example", "b.example");
        assert!(run(&mut shell, "sh", "NAME=$(echo x)\n").printed.is_empty());
        let outcome = run(&mut shell, "sh exit=3", "echo $NAME a.example\nls docs/README.md\nexit 3\n");
        assert!(outcome.as_said, "{outcome:?}");
        assert_eq!(outcome.printed, "x b.example\ndocs/README.md\n");
        let outcome = run(&mut shell, "sh", "false | true\necho on\n");
        assert!(!outcome.as_said && outcome.printed.is_empty(), "{outcome:?}");
    }

    #[test]
    fn what_has_no_end_is_interrupted_once_it_has_said_so() {
        let mut shell = Shell::new(&[]).unwrap();
        assert!(run(&mut shell, "sh until=ready", "echo getting ready\nsleep 1000\n").as_said);
        assert!(!run(&mut shell, "sh until=ready", "echo not yet\n").as_said);
        let caught = "trap 'echo caught; exit 1' INT\necho ready\nwhile true; do sleep 0.01; done\n";
        assert!(!run(&mut shell, "sh until=ready", caught).as_said);
    }
}
