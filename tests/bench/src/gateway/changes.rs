//! What a change of 10,000 routes costs: the time until it is in force, and how long a request waits meanwhile.
//!
//! One connection asks all the time, at the listener whose one route changes with all the others: its answers tell the version that
//! is in force.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use mesh_lab::Place as _;
use serde::{Deserialize, Serialize};

use super::stage::{Front, PATIENCE, ROUTES, Stage, VERSION};
use crate::cases::{Reading, reading};
use crate::subjects::Subject::Mesh;

const MANY: u32 = 10_000;
/// How long is asked where nothing changes.
const AT_REST: Duration = Duration::from_secs(1);

/// What [`asking`] prints at its end.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    /// Microseconds of the longest request.
    longest: u64,
    /// Microseconds since 1970 at the last answer.
    ended: u64,
}

/// From [`ROUTES`] to [`MANY`], then one of those alone, and back again.
pub(super) fn measure(stage: &Stage) -> Result<Vec<Reading>> {
    let at_rest = ask(stage, &["--millis", &AT_REST.as_millis().to_string()], || Ok(()))?;
    let (all, while_all) = change(stage, MANY, 1)?;
    let (one, while_one) = change(stage, MANY, 2)?;
    change(stage, ROUTES, 0)?;
    Ok(vec![
        reading("all", "ms", all),
        reading("one", "ms", one),
        reading("longest", "ms", while_all.max(while_one)),
        reading("longest-at-rest", "ms", millis(at_rest.longest)),
    ])
}

/// How long it takes until a change is in force, and the longest request from before until then, both in milliseconds.
fn change(stage: &Stage, routes: u32, version: u32) -> Result<(f64, f64)> {
    let mut began = 0;
    let asked = ask(stage, &["--until", &version.to_string()], || {
        began = now()?;
        stage.change(routes, version)
    })?;
    Ok((millis(asked.ended.saturating_sub(began)), millis(asked.longest)))
}

/// Runs [`asking`] in the pod, and `meanwhile` once it asks.
fn ask(stage: &Stage, how_long: &[&str], meanwhile: impl FnOnce() -> Result<()>) -> Result<Asked> {
    let program = std::env::current_exe().context("finding this program's own path")?.display().to_string();
    let to = stage.address(Mesh, Front::OneRoute).to_string();
    let argv = [&["taskset", "-c", "1", &program, "asking", "--to", &to], how_long].concat();
    let mut asking = stage.pod.spawn(&argv)?;
    asking.wait_for_line("asking", PATIENCE)?;
    meanwhile()?;
    let line = asking.wait_for_line("{", PATIENCE)?;
    serde_json::from_str(&line).with_context(|| format!("what asks said: {line}"))
}

/// Asks on one connection, one request after the other, and prints what came of it.
pub(crate) fn asking(to: SocketAddr, for_millis: Option<u64>, until: Option<u32>) -> Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?);
    stream.get_ref().set_nodelay(true)?;
    stream.get_ref().set_read_timeout(Some(PATIENCE))?;
    let (start, until) = (Instant::now(), until.map(|version| version.to_string()));
    let mut longest = Duration::ZERO;
    once(&mut stream)?;
    println!("asking");
    loop {
        let begin = Instant::now();
        let version = once(&mut stream)?;
        longest = longest.max(begin.elapsed());
        let over = for_millis.is_some_and(|limit| start.elapsed() >= Duration::from_millis(limit));
        if over || until.as_ref().is_some_and(|until| *until == version) {
            let longest = longest.as_micros().try_into().unwrap_or(u64::MAX);
            println!("{}", serde_json::to_string(&Asked { longest, ended: now()? })?);
            return Ok(());
        }
    }
}

/// One request, and the version that its answer tells.
fn once(stream: &mut BufReader<TcpStream>) -> Result<String> {
    stream.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n").context("asking")?;
    let (mut version, mut length, mut line) = (None, None, String::new());
    loop {
        line.clear();
        ensure!(stream.read_line(&mut line).context("reading an answer")? > 0, "the connection ended");
        let field = line.trim_end();
        if field.is_empty() {
            break;
        }
        if let Some((name, value)) = field.split_once(": ") {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.parse::<u64>().context("the answer's length")?),
                VERSION => version = Some(value.to_owned()),
                _ => {}
            }
        }
    }
    let length = length.context("an answer without a length")?;
    std::io::copy(&mut stream.take(length), &mut std::io::sink()).context("reading an answer's body")?;
    version.context("an answer without a version")
}

/// Microseconds since 1970, which two processes can compare.
fn now() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?;
    since.as_micros().try_into().context("a clock far ahead")
}

fn millis(microseconds: u64) -> f64 {
    microseconds as f64 / 1e3
}
