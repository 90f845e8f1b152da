//! Taking labs down: one's own, and those whose owner died without doing it.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use crate::owner::LabId;
use crate::{cgroup, netns};

/// Where labs keep their files: a directory a lab, named by it.
pub(crate) const DIRECTORY: &str = "/run/meshlab";

/// The file in a lab's directory that says: leave it when its owner is gone.
pub(crate) const KEEP: &str = "keep";

/// After so long without anything new, nobody makes anything any more.
const QUIET: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static RESTING: AtomicBool = AtomicBool::new(false);
static LIVE: Mutex<BTreeSet<LabId>> = Mutex::new(BTreeSet::new());

fn live() -> MutexGuard<'static, BTreeSet<LabId>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a lab of this process for [`on_interrupt`].
pub(crate) fn register(id: LabId) {
    live().insert(id);
}

/// Forgets a lab of this process: it was taken down, or is to stay.
pub(crate) fn forget(id: LabId) {
    live().remove(&id);
}

/// On SIGINT, SIGTERM or SIGHUP: takes down all labs of this process, calls `farewell` and exits with 130.
///
/// Other threads may be making something meanwhile. What they make is taken down as well until they are in
/// [`rest_if_interrupted`], or until nothing new came for a second.
///
/// # Errors
/// Fails when the process has such a handler already.
pub fn on_interrupt(farewell: impl Fn() + Send + 'static) -> Result<()> {
    ctrlc::set_handler(move || {
        INTERRUPTED.store(true, Ordering::SeqCst);
        if let Err(error) = take_all_down() {
            eprintln!("cleaning up: {error:#}");
        }
        farewell();
        process::exit(130);
    })
    .context("installing the handler for Ctrl-C")
}

/// For a program's main thread, when something has failed: does not return while an interrupt is being handled, as the
/// failure is of its making.
pub fn rest_if_interrupted() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        RESTING.store(true, Ordering::SeqCst);
        thread::park();
    }
}

fn take_all_down() -> Result<()> {
    let mut quiet_since = Instant::now();
    loop {
        let resting = RESTING.load(Ordering::SeqCst);
        let mut outcome = Ok(());
        for id in live().clone() {
            if !paths(id)?.is_empty() {
                quiet_since = Instant::now();
            }
            outcome = outcome.and(take_down(id).with_context(|| id.to_string()));
        }
        if resting || quiet_since.elapsed() > QUIET {
            return outcome;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Takes down the labs whose owner is dead, but for those that were to be kept. Every lab's start does this.
pub fn sweep() -> Result<()> {
    for id in all()? {
        if !id.owner_lives() && !home(id).join(KEEP).exists() {
            take_down(id).with_context(|| format!("cleaning up {id}, whose owner is gone"))?;
        }
    }
    Ok(())
}

/// The names of the labs that were kept after their owner's end.
pub fn kept() -> Result<Vec<String>> {
    let owners_are_dead = all()?.into_iter().filter(|id| !id.owner_lives());
    Ok(owners_are_dead.filter(|id| home(*id).join(KEEP).exists()).map(|id| id.to_string()).collect())
}

/// Takes down the lab of that name, kept or not, whoever owns it.
pub fn remove(lab: &str) -> Result<()> {
    let id = LabId::of(lab).with_context(|| format!("{lab} is no lab's name"))?;
    take_down(id).with_context(|| format!("cleaning up {id}"))
}

/// What is left of the lab of that name, as paths: namespaces, cgroups, directories and mounts. Empty after clean-up.
pub fn remains(lab: &str) -> Result<Vec<PathBuf>> {
    let Some(id) = LabId::of(lab) else { return Ok(Vec::new()) };
    let mut found = paths(id)?;
    found.extend(mounts_below(&home(id))?);
    Ok(found)
}

/// The directory of a lab's files.
pub(crate) fn home(id: LabId) -> PathBuf {
    Path::new(DIRECTORY).join(id.to_string())
}

/// Removes everything of a lab; what is gone already is fine, so that two may do it at once.
pub(crate) fn take_down(id: LabId) -> Result<()> {
    // Processes first: they hold mounts and namespaces.
    cgroup::remove(&cgroup::mount_point()?.join(id.to_string()))?;
    let home = home(id);
    for mount in mounts_below(&home)? {
        remove_pins(&mount);
        let _ = umount2(&mount, MntFlags::MNT_DETACH);
        // Removing the mount point takes the mount out of other labs' mount namespaces too.
        let _ = fs::remove_dir(&mount);
    }
    for path in paths_in(Path::new(netns::DIRECTORY), id)? {
        netns::delete(&path);
    }
    match fs::remove_dir_all(&home) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", home.display()))
        }
        _ => Ok(()),
    }
}

/// Removes pinned programs, maps and links: a mount that someone else still holds must not keep them attached.
fn remove_pins(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_pins(&entry.path());
            let _ = fs::remove_dir(entry.path());
        } else {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Mount points below `directory`, innermost first.
fn mounts_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let mut found: Vec<_> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from)
        .filter(|place| place.starts_with(directory))
        .collect();
    found.reverse();
    Ok(found)
}

/// Every lab that something on this machine is named after.
fn all() -> Result<BTreeSet<LabId>> {
    let mut found = BTreeSet::new();
    for directory in places()? {
        found.extend(names(&directory)?.iter().filter_map(|name| LabId::of(name)));
    }
    Ok(found)
}

fn paths(id: LabId) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for directory in places()? {
        found.extend(paths_in(&directory, id)?);
    }
    Ok(found)
}

fn places() -> Result<[PathBuf; 3]> {
    Ok([PathBuf::from(netns::DIRECTORY), PathBuf::from(DIRECTORY), cgroup::mount_point()?])
}

fn paths_in(directory: &Path, id: LabId) -> Result<Vec<PathBuf>> {
    Ok(names(directory)?
        .into_iter()
        .filter(|name| LabId::of(name) == Some(id))
        .map(|name| directory.join(name))
        .collect())
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", directory.display())),
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
