//! Running a command as a named step: progress while it runs, one line when it is done, its output when it fails.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a step that takes long says so where standard error is no terminal.
const REMINDER: Duration = Duration::from_secs(30);

/// What a finished command wrote, both streams in order of arrival.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

/// Runs `command`; fails with everything that it wrote when it fails.
pub(crate) fn run(label: &str, command: &mut Command) -> Result<String> {
    let finished = watch(label, command)?;
    if finished.status.success() {
        return Ok(finished.output);
    }
    eprintln!("{}", finished.output.trim_end());
    bail!("{label}: `{}` ended with {}", shown(command), finished.status)
}

/// Runs `command` and returns how it ended and what it wrote.
pub(crate) fn watch(label: &str, command: &mut Command) -> Result<Finished> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    let (sender, receiver) = mpsc::channel();
    for stream in [child.stdout.take().map(boxed), child.stderr.take().map(boxed)].into_iter().flatten() {
        let sender = sender.clone();
        std::thread::spawn(move || forward(stream, &sender));
    }
    drop(sender);
    let output = collect(label, started, &receiver);
    let status = child.wait().with_context(|| format!("cannot wait for `{}`", shown(command)))?;
    let word = if status.success() { "done" } else { "FAILED" };
    eprintln!("{}{label}: {word} in {:.1} s", erase(), started.elapsed().as_secs_f32());
    Ok(Finished { status, output })
}

fn boxed(stream: impl Read + Send + 'static) -> Box<dyn Read + Send> {
    Box::new(stream)
}

fn forward(stream: Box<dyn Read + Send>, lines: &Sender<String>) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
        line.clear();
    }
}

fn collect(label: &str, started: Instant, lines: &Receiver<String>) -> String {
    let terminal = std::io::stderr().is_terminal();
    let pause = if terminal { Duration::from_millis(200) } else { REMINDER };
    let mut output = String::new();
    let mut last = String::new();
    let mut reported = Instant::now();
    eprint!("{}", if terminal { String::new() } else { format!("{label} ...\n") });
    loop {
        match lines.recv_timeout(pause) {
            Ok(line) => {
                line.trim().clone_into(&mut last);
                output.push_str(&line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return output,
        }
        if reported.elapsed() >= pause {
            reported = Instant::now();
            report(label, started, &last, terminal);
        }
    }
}

fn report(label: &str, started: Instant, last: &str, terminal: bool) {
    let seconds = started.elapsed().as_secs();
    let room = 100_usize.saturating_sub(label.len());
    let last: String = last.chars().filter(|c| !c.is_control()).take(room).collect();
    eprint!("{}{label}: {seconds} s  {last}{}", erase(), if terminal { "" } else { "\n" });
    // A lost progress line is no reason to stop.
    let _ = std::io::stderr().flush();
}

fn erase() -> &'static str {
    if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" }
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// The cargo that runs this program, with none of the variables that it set for it.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST") || text.starts_with("CARGO_BIN_") {
            command.env_remove(&name);
        }
    }
    command.current_dir(crate::repo::root());
    command
}

/// Whether this process may do everything (effective user 0).
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// `program`, through sudo where this process is not root. `why` is said before sudo asks for a password.
pub(crate) fn as_root(why: &str, program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if find("sudo").is_none() {
        bail!("{why}; this needs root and there is no sudo here: run it as root");
    }
    eprintln!("{why}: this part alone runs as root, through sudo");
    // The password is asked for here, where the terminal is still ours.
    let status = Command::new("sudo").arg("--validate").status().context("cannot start sudo")?;
    if !status.success() {
        bail!("{why}; sudo was refused: run it as root or allow sudo");
    }
    let mut command = Command::new("sudo");
    command.args(["--preserve-env", "--"]).arg(program);
    Ok(command)
}

/// A program by PATH or in the folders of system programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(program)).find(|file| is_program(file))
}

/// Whether this is a file that may be executed.
pub(crate) fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
