//! Finds pods' sandboxes by the names that kubelet gives cgroups, in /proc.
//!
//! Kubelet names a pod's cgroup `.../kubepods/<qos>/pod<uid>/<container>` with the cgroupfs driver and
//! `.../kubepods-<qos>-pod<uid with underscores>.slice/...` with the systemd driver; guaranteed pods
//! have no `<qos>` part.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use mesh_core::WorkloadUid;

/// A process in a pod's own network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SandboxProcess {
    /// Its pid in the daemon's pid namespace.
    pub(super) pid: u32,
    /// Inode of its network namespace.
    pub(super) netns_inode: u64,
}

/// The sandboxes of the wanted pods (by uid) that run now: of each the oldest process, which is the
/// one that holds the namespaces. Processes in the namespace `host` are left out.
pub(super) fn find(proc: &Path, wanted: &HashSet<&WorkloadUid>, host: u64) -> HashMap<WorkloadUid, SandboxProcess> {
    let mut found: HashMap<WorkloadUid, SandboxProcess> = HashMap::new();
    if wanted.is_empty() {
        return found;
    }
    for pid in pids(proc) {
        // A process that ends meanwhile is no sandbox any more.
        let Ok(cgroups) = fs::read_to_string(proc.join(format!("{pid}/cgroup"))) else {
            continue;
        };
        let Some(uid) = pod_uid(&cgroups).filter(|uid| wanted.contains(uid)) else {
            continue;
        };
        let Some(netns_inode) = netns_inode(proc, pid).filter(|inode| *inode != host) else {
            continue;
        };
        let process = SandboxProcess { pid, netns_inode };
        found
            .entry(uid)
            .and_modify(|known| {
                if pid < known.pid {
                    *known = process;
                }
            })
            .or_insert(process);
    }
    found
}

/// A process of each network namespace but `host`, of a pod's where there is one, with that pod's uid.
pub(super) fn namespaces(proc: &Path, host: u64) -> Vec<(SandboxProcess, Option<WorkloadUid>)> {
    let mut found: HashMap<u64, (SandboxProcess, Option<WorkloadUid>)> = HashMap::new();
    for pid in pids(proc) {
        let Some(netns_inode) = netns_inode(proc, pid).filter(|inode| *inode != host) else {
            continue;
        };
        let known = found.entry(netns_inode).or_insert((SandboxProcess { pid, netns_inode }, None));
        if known.1.is_none() {
            let cgroups = fs::read_to_string(proc.join(format!("{pid}/cgroup")));
            known.1 = cgroups.ok().and_then(|cgroups| pod_uid(&cgroups));
        }
    }
    found.into_values().collect()
}

/// A process of each network namespace that has one, by its pid, with the uid of the pod if it is a pod's.
pub fn each_namespace(proc: &Path) -> Vec<(u32, Option<WorkloadUid>)> {
    // No namespace has this inode.
    namespaces(proc, 0).into_iter().map(|(process, uid)| (process.pid, uid)).collect()
}

/// Inode of a process's network namespace; `None` when the process is gone.
#[must_use]
pub fn netns_inode(proc: &Path, pid: u32) -> Option<u64> {
    let metadata = fs::metadata(proc.join(format!("{pid}/ns/net")));
    metadata.ok().map(|metadata| metadata.ino())
}

fn pids(proc: &Path) -> Vec<u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The uid of the pod to which a process belongs, from the text of its /proc/PID/cgroup.
fn pod_uid(cgroups: &str) -> Option<WorkloadUid> {
    cgroups.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        let mut below_kubepods = false;
        for part in path.split('/') {
            if below_kubepods && let Some(uid) = uid_in(part) {
                return Some(uid.into());
            }
            below_kubepods |= part.starts_with("kubepods");
        }
        None
    })
}

/// The uid in one directory name: `pod<uid>` or `kubepods[-<qos>]-pod<uid>.slice`.
fn uid_in(part: &str) -> Option<String> {
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        None => part.strip_prefix("pod")?.to_owned(),
    };
    let plausible = !uid.is_empty() && uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    plausible.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "8dbc7577-d0e2-4706-8787-57d52c03ddf2";

    #[test]
    fn uids_are_read_from_both_cgroup_drivers() {
        let underscores = UID.replace('-', "_");
        let cases = [
            format!("0::/kubepods/besteffort/pod{UID}/0123456789abcdef\n"),
            format!("0::/kubepods/pod{UID}/0123456789abcdef\n"),
            format!("0::/lab/node-a/kubepods/burstable/pod{UID}/c1\n"),
            format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{underscores}.slice/cri-containerd-01.scope\n"
            ),
            format!("0::/kubepods.slice/kubepods-pod{underscores}.slice/cri-containerd-01.scope\n"),
            format!("12:cpu,cpuacct:/kubepods/burstable/pod{UID}/c1\n0::/\n"),
        ];
        for case in cases {
            assert_eq!(pod_uid(&case), Some(WorkloadUid::new(UID)), "{case}");
        }
    }

    #[test]
    fn other_cgroups_are_no_pods() {
        let cases = [
            "0::/\n",
            "0::/system.slice/containerd.service\n",
            "0::/user.slice/podman-1.scope\n",
            "0::/podium/pod-like\n",
            "0::/kubepods/besteffort\n",
            "",
        ];
        for case in cases {
            assert_eq!(pod_uid(case), None, "{case}");
        }
    }

    #[test]
    fn this_process_is_found_only_where_its_namespace_is_not_the_hosts() {
        let proc = tempfile::tempdir().expect("a directory");
        let pid = proc.path().join("41");
        fs::create_dir_all(pid.join("ns")).expect("made");
        fs::write(pid.join("cgroup"), format!("0::/kubepods/pod{UID}/c1\n")).expect("written");
        fs::write(pid.join("ns/net"), "").expect("written");
        let inode = netns_inode(proc.path(), 41).expect("there");
        let (uid, other) = (WorkloadUid::new(UID), WorkloadUid::new("other"));
        let wanted = HashSet::from([&uid]);
        let found = find(proc.path(), &wanted, 0);
        assert_eq!(found.get(&uid).map(|process| process.pid), Some(41));
        assert!(find(proc.path(), &wanted, inode).is_empty());
        assert!(find(proc.path(), &HashSet::from([&other]), 0).is_empty());
    }
}
