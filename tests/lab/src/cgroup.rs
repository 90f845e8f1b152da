//! cgroup v2 directories, made, emptied and removed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use crate::wait::{PATIENCE, wait_until};

/// Where cgroup v2 is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid machine.
pub(crate) fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("reading /proc/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    found.context("no cgroup v2 is mounted here: run `mount -t cgroup2 none /sys/fs/cgroup`, or boot with systemd.unified_cgroup_hierarchy=1")
}

/// Makes a cgroup and those above it.
pub(crate) fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .with_context(|| format!("making the cgroup {} (is the cgroup file system writable here?)", path.display()))?;
    if !path.join("cgroup.kill").exists() {
        bail!("{} has no cgroup.kill: a lab needs Linux 5.14 or later", path.display());
    }
    Ok(())
}

/// Kills every process in the cgroup and below it, and waits until they are gone.
pub(crate) fn kill(path: &Path) -> Result<()> {
    match fs::write(path.join("cgroup.kill"), "1") {
        Ok(()) => {}
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("killing the processes of {}", path.display())),
    }
    wait_until(
        &format!("the processes of {} to die", path.display()),
        PATIENCE,
        || Ok((!populated(path)).then_some(())),
    )
}

/// Whether a file of a cgroup could not be used because another sweep has just removed the cgroup.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

fn populated(path: &Path) -> bool {
    fs::read_to_string(path.join("cgroup.events")).is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}

/// Kills what is in the cgroup and below it, and removes them.
pub(crate) fn remove(path: &Path) -> Result<()> {
    kill(path)?;
    // The kernel may hold on to an emptied cgroup for a moment.
    wait_until(&format!("{} to be removable", path.display()), PATIENCE, || Ok(remove_directories(path).ok()))
}

fn remove_directories(path: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_directories(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
