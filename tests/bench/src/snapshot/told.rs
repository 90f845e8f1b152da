//! The same cluster as mesh-control tells a node of it: objects one by one, in a process that has nothing else.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mesh_config::{LiveObjects, ObjectName, Options, watch};

use super::{mebibytes, millis, resident};

/// What the hidden command is called that is run in a process of its own.
pub(crate) const COMMAND: &str = "told";

/// Writes what mesh-control would tell of the manifests, and has another process follow it.
pub(super) async fn measure(directory: &Path, changes: u32) -> Result<()> {
    let options = Options { served: true, ..Options::default() };
    let config = watch(directory.to_owned(), options).await?.borrow().clone();
    let file = tempfile::NamedTempFile::new().context("making a file for what is told")?;
    let mut lines = BufWriter::new(&file);
    for served in config.served.iter() {
        writeln!(lines, "{}\t{}", served.path(), served.source.object).context("writing what is told")?;
    }
    lines.flush().context("writing what is told")?;
    let program = std::env::current_exe().context("finding this program's own path")?;
    let mut command = Command::new(program);
    command.arg(COMMAND).arg("--objects").arg(file.path()).args(["--changes", &changes.to_string()]);
    ensure!(
        command.status().context("starting the process that is told")?.success(),
        "the process that is told failed"
    );
    Ok(())
}

/// Takes the objects, and changes a Pod's address again and again.
pub(crate) fn follow(objects: &Path, changes: u32) -> Result<()> {
    let before = resident()?;
    let mut live = LiveObjects::new(Options::default());
    let start = Instant::now();
    let (mut pods, mut count) = (Vec::new(), 0);
    for line in BufReader::new(File::open(objects).context("opening what is told")?).lines() {
        let line = line.context("reading what is told")?;
        let (path, object) = line.split_once('\t').context("a line without an object")?;
        live.take(&named(path)?, object, None)?;
        count += 1;
        if path.starts_with("/Pod/") && pods.len() < changes as usize {
            pods.push((path.to_owned(), object.to_owned()));
        }
    }
    let config = live.publish();
    println!("told one by one: {count} objects, {} workloads", config.snapshot.workloads().len());
    println!("in force after         {:>9.1} s", start.elapsed().as_secs_f64());
    println!("resident, in addition  {:>9.1} MiB", mebibytes(resident()? - before));
    let mut times = Vec::new();
    for (number, (path, object)) in pods.iter().enumerate() {
        let address = format!("\"ip\":\"10.254.0.{}\"", number % 250 + 1);
        let at = object.find("\"ip\":\"").context("a Pod without an address")?;
        let end = at + 6 + object[at + 6..].find('"').context("an address without an end")? + 1;
        let changed = format!("{}{address}{}", &object[..at], &object[end..]);
        let start = Instant::now();
        live.take(&named(path)?, &changed, None)?;
        let now = live.publish();
        times.push(start.elapsed());
        ensure!(now.generation > config.generation, "the change changes nothing");
    }
    times.sort();
    if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
        println!("a pod's change         {:>9.2} ms until in force, at most {:.2}", millis(*median), millis(*longest));
    }
    println!("resident after changes {:>9.1} MiB", mebibytes(resident()? - before));
    let size = fs::metadata(objects).context("what is told")?.len();
    println!("told in                {:>9.1} MiB of JSON", size as f64 / f64::from(1 << 20));
    Ok(())
}

fn named(path: &str) -> Result<ObjectName> {
    ObjectName::of_path(path).with_context(|| format!("{path:?} names no object"))
}
