//! Which cgroups are pods'.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Cgroups that are looked at for one client at most.
const MOST: usize = 100_000;
/// How kubelet names what all of its pods' cgroups are below, with either driver.
const PODS: &str = "kubepods";

/// The cgroups of a node's pods.
///
/// A pod on the node's own network shares its loopback, and a container's root is the node's user 0. The admin API's Unix socket is
/// out of its reach, as a file that it does not see; its cgroup tells it from the node's own programs on loopback, too.
#[derive(Debug, Clone)]
pub struct PodCgroups {
    root: PathBuf,
}

impl PodCgroups {
    /// Below the root of the cgroup v2 hierarchy.
    #[must_use]
    pub fn below(root: PathBuf) -> Self {
        Self { root }
    }

    /// Whether a cgroup is one of a node's own programs: found, and below no directory of kubelet's pods.
    pub(crate) fn is_of_the_node(&self, id: u64) -> bool {
        if is(&self.root, id) {
            return true;
        }
        let mut unread = vec![self.root.clone()];
        let mut looked = 0;
        while let Some(directory) = unread.pop() {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries.flatten() {
                let is_pods = entry.file_name().to_string_lossy().contains(PODS);
                if is_pods || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                looked += 1;
                if looked > MOST {
                    return false;
                }
                if is(&entry.path(), id) {
                    return true;
                }
                unread.push(entry.path());
            }
        }
        false
    }
}

/// A cgroup's id is its directory's inode.
fn is(directory: &Path, id: u64) -> bool {
    fs::metadata(directory).is_ok_and(|metadata| metadata.ino() == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_cgroup_is_not_the_nodes_and_neither_is_one_that_is_not_there() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            fs::create_dir_all(root.path().join(path)).unwrap();
            fs::metadata(root.path().join(path)).unwrap().ino()
        };
        let own = [make("system.slice/containerd.service"), make("user.slice"), make("kubelet.slice/kubelet.service")];
        let pods = [
            make("kubepods/burstable/pod0/c"),
            make("kubepods.slice"),
            make("lab/node-a/kubepods/pod1/c"),
            make("kubelet.slice/kubelet-kubepods.slice"),
        ];
        let cgroups = PodCgroups::below(root.path().to_owned());
        assert!(own.into_iter().all(|id| cgroups.is_of_the_node(id)));
        assert!(cgroups.is_of_the_node(fs::metadata(root.path()).unwrap().ino()), "the root");
        assert!(!pods.into_iter().any(|id| cgroups.is_of_the_node(id)));
        assert!(!cgroups.is_of_the_node(u64::MAX), "unknown");
    }
}
