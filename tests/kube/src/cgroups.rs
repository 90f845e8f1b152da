//! The cgroups of a cluster: a subtree in every hierarchy of the machine, by which all of it is found and killed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_lab::wait_until;

/// How long the kernel may take to end processes and let go of their cgroups.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) mount: PathBuf,
    /// Version 2, of which a machine has one.
    pub(crate) unified: bool,
}

/// The hierarchies that this process sees.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let found = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (mount, kind) = (PathBuf::from(fields.next()?), fields.next()?);
        let unified = kind == "cgroup2";
        (unified || kind == "cgroup").then_some(Hierarchy { mount, unified })
    });
    Ok(found.collect())
}

/// Where version 2 is mounted.
pub(crate) fn unified() -> Result<PathBuf> {
    let hierarchy = hierarchies()?.into_iter().find(|hierarchy| hierarchy.unified);
    Ok(hierarchy.context("no cgroup v2 is mounted here")?.mount)
}

/// Makes the cgroup `path`, such as `cluster/node`, in every hierarchy.
pub(crate) fn create(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let mut place = hierarchy.mount.clone();
        for part in Path::new(path) {
            let above = place.clone();
            place.push(part);
            fs::create_dir_all(&place).with_context(|| format!("making the cgroup {}", place.display()))?;
            // A cpuset without CPUs and memory takes no process.
            for file in
                ["cpuset.cpus", "cpuset.mems"].iter().filter(|file| !hierarchy.unified && above.join(file).exists())
            {
                let inherited = fs::read_to_string(above.join(file))?;
                fs::write(place.join(file), inherited.trim()).with_context(|| format!("{}/{file}", place.display()))?;
            }
        }
    }
    Ok(())
}

/// Moves this process into the cgroup `path` of every hierarchy.
pub(crate) fn enter(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let file = hierarchy.mount.join(path).join("cgroup.procs");
        fs::write(&file, "0").with_context(|| format!("entering {}", file.display()))?;
    }
    Ok(())
}

/// Kills everything in the cgroup `path` and below, and removes it everywhere. One that is not there is fine.
pub(crate) fn remove(path: &str) -> Result<()> {
    kill(&unified()?.join(path))?;
    for hierarchy in hierarchies()? {
        let place = hierarchy.mount.join(path);
        // The kernel may hold on to an emptied cgroup for a moment.
        wait_until(&format!("{} to be removable", place.display()), PATIENCE, || Ok(remove_tree(&place).ok()))?;
    }
    Ok(())
}

/// Kills everything in a cgroup of version 2 and below it, and waits until it has ended.
pub(crate) fn kill(place: &Path) -> Result<()> {
    if !place.exists() {
        return Ok(());
    }
    fs::write(place.join("cgroup.kill"), "1").with_context(|| format!("killing what is in {}", place.display()))?;
    wait_until(&format!("the processes of {} to end", place.display()), PATIENCE, || {
        let events = fs::read_to_string(place.join("cgroup.events")).unwrap_or_default();
        Ok((!events.lines().any(|line| line == "populated 1")).then_some(()))
    })
}

fn remove_tree(place: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path())?;
    }
    fs::remove_dir(place)
}
