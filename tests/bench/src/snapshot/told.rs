//! The same cluster as mesh-control tells a node of it: response by response, in a process that has nothing else.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mesh_config::{LiveObjects, ObjectName, Options, watch};
use mesh_xds::proto::{DeltaDiscoveryResponse, Node, Object};
use mesh_xds::{OBJECT_TYPE, Publication, Replica, Session, Update, apply};
use prost::Message as _;

use super::{mebibytes, millis, resident};

/// What the hidden command is called that is run in a process of its own.
pub(crate) const COMMAND: &str = "told";

/// Writes what mesh-control would tell of the manifests, and has another process follow it.
pub(super) async fn measure(directory: &Path, changes: u32) -> Result<()> {
    let options = Options { served: true, ..Options::default() };
    let config = watch(directory.to_owned(), options).await?.borrow().clone();
    let file = tempfile::NamedTempFile::new().context("making a file for what is told")?;
    let mut told = BufWriter::new(&file);
    let state = Publication::default().next(&config).context("a first state")?;
    let (mut replica, mut session) = (Replica::new(OBJECT_TYPE, Node::default()), Session::default());
    session.take(&replica.first_request(), &state)?;
    while let Some(response) = session.next(&state) {
        let octets = response.encode_to_vec();
        told.write_all(&u32::try_from(octets.len())?.to_be_bytes()).context("writing what is told")?;
        told.write_all(&octets).context("writing what is told")?;
        session.take(&replica.take(&response, |_| Ok(())), &state)?;
    }
    told.flush().context("writing what is told")?;
    let program = std::env::current_exe().context("finding this program's own path")?;
    let mut command = Command::new(program);
    command.arg(COMMAND).arg("--responses").arg(file.path()).args(["--changes", &changes.to_string()]);
    ensure!(
        command.status().context("starting the process that is told")?.success(),
        "the process that is told failed"
    );
    Ok(())
}

/// Takes the responses, and changes a Pod's address again and again.
pub(crate) fn follow(responses: &Path, changes: u32) -> Result<()> {
    let before = resident()?;
    let (mut live, mut replica) = (LiveObjects::new(Options::default()), Replica::new(OBJECT_TYPE, Node::default()));
    let start = Instant::now();
    let (mut pods, mut count) = (Vec::new(), 0);
    let mut told = BufReader::new(File::open(responses).context("opening what is told")?);
    while let Some(response) = next(&mut told)? {
        let answer = replica.take(&response, |update| {
            count += 1;
            if let Update::Put { name, message } = update
                && name.starts_with("/Pod/")
                && pods.len() < changes as usize
            {
                pods.push((name.to_owned(), Object::decode(message).map_err(|error| error.to_string())?.object));
            }
            apply(&mut live, update)
        });
        ensure!(answer.error_detail.is_none(), "what is told is not taken: {answer:?}");
    }
    let config = live.publish();
    println!("told by responses: {count} objects, {} workloads", config.snapshot.workloads().len());
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
    let size = fs::metadata(responses).context("what is told")?.len();
    println!("told in                {:>9.1} MiB", size as f64 / f64::from(1 << 20));
    Ok(())
}

/// The next response; none at the end.
fn next(told: &mut BufReader<File>) -> Result<Option<DeltaDiscoveryResponse>> {
    let mut length = [0; 4];
    if told.read(&mut length[..1]).context("reading what is told")? == 0 {
        return Ok(None);
    }
    told.read_exact(&mut length[1..]).context("reading what is told")?;
    let mut octets = vec![0; usize::try_from(u32::from_be_bytes(length))?];
    told.read_exact(&mut octets).context("reading what is told")?;
    Ok(Some(DeltaDiscoveryResponse::decode(&octets[..]).context("reading what is told")?))
}

fn named(path: &str) -> Result<ObjectName> {
    ObjectName::of_path(path).with_context(|| format!("{path:?} names no object"))
}
