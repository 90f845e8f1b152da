//! Nothing of a lab stays, however its owner ends.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use mesh_lab::{Lab, Place, PodSpec, kept, on_interrupt, remains, remove, sweep, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Set for a copy of this test program that owns a lab: to `end`, it waits to be ended; to `keep`, it leaves the lab.
const OWNER: &str = "MESH_LAB_TEST_OWNER";

fn lab_with_a_pod() -> Result<Lab> {
    let lab = Lab::builder().node("node-a").node("node-b").build()?;
    lab.deploy(PodSpec::new("shop", "busy").on("node-b").command(["sleep", "infinity"]))?;
    Ok(lab)
}

/// Processes that live in a cgroup of the lab. A dead one that nobody has waited for is in a cgroup that is deleted.
fn processes(lab: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    entries
        .filter(|path| {
            fs::read_to_string(path.join("cgroup"))
                .is_ok_and(|cgroup| cgroup.contains(lab) && !cgroup.contains("(deleted)"))
        })
        .collect()
}

fn assert_gone(lab: &str) -> Result<()> {
    assert_eq!(remains(lab)?, Vec::<PathBuf>::new());
    assert_eq!(processes(lab), Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn a_lab_that_is_dropped_leaves_nothing() -> Result<()> {
    let lab = lab_with_a_pod()?;
    let id = lab.id();
    assert!(remains(&id)?.len() >= 5, "namespaces, a cgroup and a directory are there: {:?}", remains(&id)?);
    assert!(!processes(&id).is_empty());
    drop(lab);
    assert_gone(&id)?;
    Ok(())
}

#[test]
fn a_panic_leaves_nothing() -> Result<()> {
    let mut id = String::new();
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let lab = lab_with_a_pod().unwrap();
        id = lab.id();
        panic!("on purpose");
    }));
    assert!(result.is_err());
    assert_gone(&id)?;
    Ok(())
}

#[test]
fn taking_down_one_lab_leaves_another_alone() -> Result<()> {
    let (one, other) = (lab_with_a_pod()?, lab_with_a_pod()?);
    let before = remains(&other.id())?;
    let id = one.id();
    one.take_down()?;
    assert_gone(&id)?;
    sweep()?;
    assert_eq!(remains(&other.id())?, before);
    other.node("node-a")?.exec(&["true"])?.success()?;
    Ok(())
}

/// A copy of this program with a lab of its own.
struct Owner {
    process: Child,
    /// Held open: the owner ends when its input does.
    _input: ChildStdin,
    /// Held open: the owner would fail to print.
    _output: Lines<BufReader<ChildStdout>>,
    lab: String,
}

impl Owner {
    fn start(mode: &str) -> Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .args(["--exact", "owner", "--ignored", "--nocapture"])
            .env(OWNER, mode)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take().context("the input is piped")?;
        let mut output = BufReader::new(process.stdout.take().context("the output is piped")?).lines();
        let line = output.find_map(|line| line.ok()?.strip_prefix("lab ").map(String::from));
        let lab = line.context("the owner ended without a lab")?;
        Ok(Self { process, _input: input, _output: output, lab })
    }

    fn end(&mut self, signal: Signal) -> Result<Option<i32>> {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal)?;
        Ok(self.process.wait()?.code())
    }
}

#[test]
#[ignore = "a part of other tests: owns a lab until it is ended"]
fn owner() -> Result<()> {
    if env::var_os(OWNER).is_none() {
        return Ok(());
    }
    on_interrupt(|| eprintln!("interrupted"))?;
    if env::var(OWNER)? == "keep" {
        let lab = Lab::builder().node("node-a").keep().build()?;
        lab.deploy(PodSpec::new("shop", "busy").command(["sh", "-c", "while sleep 0.01; do echo tick; done"]))?;
        println!("\nlab {}", lab.id());
        return Ok(());
    }
    let lab = lab_with_a_pod()?;
    println!("\nlab {}", lab.id());
    io::stdout().flush()?;
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

#[test]
fn the_next_lab_sweeps_up_after_an_owner_that_was_killed() -> Result<()> {
    let mut owner = Owner::start("end")?;
    assert!(!remains(&owner.lab)?.is_empty());
    owner.end(Signal::SIGKILL)?;
    wait_until("the killed owner's children to die with it", Duration::from_secs(5), || {
        Ok(processes(&owner.lab).is_empty().then_some(()))
    })?;
    drop(Lab::builder().node("node-a").build()?);
    assert_gone(&owner.lab)?;
    Ok(())
}

#[test]
fn a_lab_that_is_to_be_kept_runs_on_until_it_is_removed() -> Result<()> {
    let mut owner = Owner::start("keep")?;
    assert!(owner.process.wait()?.success());
    sweep()?;
    assert!(kept()?.contains(&owner.lab));
    let logs = PathBuf::from("/run/meshlab").join(&owner.lab).join("logs");
    let printed =
        || -> u64 { fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum() };
    let before = printed();
    wait_until("the pod to print more", Duration::from_secs(5), || Ok((printed() > before).then_some(())))?;
    remove(&owner.lab)?;
    assert_gone(&owner.lab)?;
    Ok(())
}

#[test]
fn an_interrupt_leaves_nothing() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut owner = Owner::start("end")?;
        assert_eq!(owner.end(signal)?, Some(130));
        assert_gone(&owner.lab)?;
    }
    Ok(())
}

#[test]
fn a_lab_that_cannot_be_built_leaves_nothing_and_says_why() -> Result<()> {
    let name = "twice-in-one-lab";
    let error = Lab::builder().node(name).node(name).build().unwrap_err();
    assert!(format!("{error:#}").contains(name), "{error:#}");
    let namespaces = fs::read_dir("/run/netns")?.flatten().map(|entry| entry.file_name().into_string().unwrap());
    assert_eq!(namespaces.filter(|namespace| namespace.ends_with(name)).collect::<Vec<_>>(), Vec::<String>::new());
    Ok(())
}
