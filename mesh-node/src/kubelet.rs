//! Where kubelet runs, so that the kernel can tell its probes from what else the node's processes do.
//!
//! A probe is known by the cgroup of the process that makes it, which the kernel records; no address stands for it. Where
//! kubelet has no cgroup of its own, what the kernel saw the node's own network namespace dial counts, at those ports alone at
//! which pods declare probes.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use mesh_abi::Setting;

use crate::{
    bpf::Settings,
    netns::{NetNamespace, NetnsError},
};

/// Kubelet's process, by its name in /proc.
const NAME: &str = "kubelet";
/// How often to look whether kubelet still is where it was: a restart gives it another cgroup.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often to look for one that is not found, which reads all of /proc.
const SEARCH_INTERVAL: Duration = Duration::from_secs(10);

/// What is done where kubelet cannot be told apart.
pub const FALLBACK: &str = "kubelet cannot be told apart: every process on the node's own network passes into pods at the ports \
                            where they declare probes, and nowhere else";

/// The node's own network namespace.
#[derive(Clone, Copy, Debug)]
pub struct HostNetns {
    /// Its inode, as /proc shows it.
    pub inode: u64,
    /// Its cookie, as the kernel's programs see it.
    pub cookie: u64,
}

impl HostNetns {
    /// The one of this process.
    ///
    /// # Errors
    /// /proc is not mounted, or the kernel knows no cookies.
    pub fn own() -> Result<Self, NetnsError> {
        let netns = NetNamespace::open(Path::new("/proc/self/ns/net"))?;
        Ok(Self { inode: netns.inode(), cookie: netns.cookie() })
    }
}

/// Kubelet cannot be told from other processes of the node. Tried again, as it may start later.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubeletError {
    /// No process has its name.
    #[error("no process of this node is named kubelet; name its cgroup with --kubelet-cgroup")]
    NotFound,
    /// It has no cgroup of its own.
    #[error("kubelet shares the cgroup {0} with others; run it in one of its own and name that with --kubelet-cgroup")]
    Shared(String),
    /// Its cgroup cannot be used.
    #[error("the cgroup {path} of kubelet cannot be used: {kind}")]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
}

/// The search for kubelet.
pub struct Kubelet {
    given: Option<PathBuf>,
    cgroup_root: PathBuf,
    proc: PathBuf,
    host_netns: u64,
    /// The same namespace, by its cookie.
    host_netns_cookie: u64,
    /// The process that was found last.
    process: Option<u32>,
}

impl Kubelet {
    /// `given` is its cgroup's directory, absolute or below `cgroup_root`; without it the process named kubelet in the
    /// network namespace `host_netns` is looked for in `proc`.
    #[must_use]
    pub fn new(given: Option<&Path>, cgroup_root: &Path, proc: &Path, host_netns: HostNetns) -> Self {
        let given = given.map(|path| cgroup_root.join(path));
        let HostNetns { inode, cookie } = host_netns;
        Self {
            given,
            cgroup_root: cgroup_root.into(),
            proc: proc.into(),
            host_netns: inode,
            host_netns_cookie: cookie,
            process: None,
        }
    }

    /// Tells the kernel where kubelet runs, now and after each restart, until the daemon ends.
    pub async fn follow(mut self, mut settings: Settings) {
        let mut told = None;
        loop {
            let found = self.cgroup_id();
            if told.as_ref() != Some(&found) {
                match &found {
                    Ok(cgroup) => tracing::info!(cgroup, "kubelet's probes are known by its cgroup"),
                    Err(error) => tracing::warn!(%error, "{FALLBACK}"),
                }
                let (cgroup, netns) = found.as_ref().map_or((0, self.host_netns_cookie), |cgroup| (*cgroup, 0));
                let set = settings.set(Setting::KubeletCgroup, cgroup);
                if let Err(error) = set.and_then(|()| settings.set(Setting::ProbesFromNetns, netns)) {
                    tracing::error!(%error, "the kernel does not know where kubelet runs");
                }
            }
            let pause = if found.is_ok() || self.given.is_some() { INTERVAL } else { SEARCH_INTERVAL };
            told = Some(found);
            tokio::time::sleep(pause).await;
        }
    }

    /// The id of kubelet's cgroup: the inode number of its directory.
    ///
    /// # Errors
    /// See [`KubeletError`].
    pub fn cgroup_id(&mut self) -> Result<u64, KubeletError> {
        let directory = match &self.given {
            Some(given) => given.clone(),
            None => self.directory()?,
        };
        let metadata = fs::metadata(&directory);
        metadata.map(|it| it.ino()).map_err(|error| KubeletError::Cgroup { path: directory, kind: error.kind() })
    }

    fn directory(&mut self) -> Result<PathBuf, KubeletError> {
        let known = self.process.filter(|pid| self.is_kubelet(*pid));
        self.process = known.or_else(|| self.pids().into_iter().find(|pid| self.is_kubelet(*pid)));
        let pid = self.process.ok_or(KubeletError::NotFound)?;
        let text = fs::read_to_string(self.proc.join(format!("{pid}/cgroup"))).map_err(|_| KubeletError::NotFound)?;
        let relative = text.lines().find_map(|line| line.strip_prefix("0::/")).ok_or(KubeletError::NotFound)?;
        if relative.is_empty() {
            return Err(KubeletError::Shared("/".to_owned()));
        }
        Ok(self.cgroup_root.join(relative))
    }

    fn is_kubelet(&self, pid: u32) -> bool {
        let name = fs::read_to_string(self.proc.join(format!("{pid}/comm")));
        let netns = || fs::metadata(self.proc.join(format!("{pid}/ns/net"))).map(|metadata| metadata.ino());
        name.is_ok_and(|name| name.trim_end() == NAME) && netns().is_ok_and(|inode| inode == self.host_netns)
    }

    fn pids(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process in a made-up /proc.
    fn process(proc: &Path, pid: u32, name: &str, cgroup: &str) -> u64 {
        let dir = proc.join(pid.to_string());
        fs::create_dir_all(dir.join("ns")).expect("made");
        fs::write(dir.join("comm"), format!("{name}\n")).expect("written");
        fs::write(dir.join("cgroup"), format!("0::{cgroup}\n")).expect("written");
        fs::write(dir.join("ns/net"), "").expect("written");
        fs::metadata(dir.join("ns/net")).expect("there").ino()
    }

    fn host(inode: u64) -> HostNetns {
        HostNetns { inode, cookie: 1 }
    }

    #[test]
    fn kubelet_is_found_by_its_name_in_the_nodes_own_namespace() {
        let (proc, root) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let cgroup = root.path().join("system.slice/kubelet.service");
        fs::create_dir_all(&cgroup).expect("made");
        process(proc.path(), 7, "kubelet", "/of/another/namespace");
        let netns = process(proc.path(), 8, "kubelet", "/system.slice/kubelet.service");
        let mut kubelet = Kubelet::new(None, root.path(), proc.path(), host(netns));
        assert_eq!(kubelet.cgroup_id(), Ok(fs::metadata(&cgroup).expect("there").ino()));
        fs::remove_dir_all(proc.path().join("8")).expect("removed");
        assert_eq!(kubelet.cgroup_id(), Err(KubeletError::NotFound));
    }

    #[test]
    fn one_in_the_root_cgroup_cannot_be_told_from_others() {
        let (proc, root) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let netns = process(proc.path(), 8, "kubelet", "/");
        let mut kubelet = Kubelet::new(None, root.path(), proc.path(), host(netns));
        assert_eq!(kubelet.cgroup_id(), Err(KubeletError::Shared("/".to_owned())));
    }

    #[test]
    fn a_cgroup_that_is_named_must_be_there() {
        let root = tempfile::tempdir().expect("a directory");
        let mut kubelet = Kubelet::new(Some(Path::new("k3s")), root.path(), Path::new("/proc"), host(0));
        assert!(kubelet.cgroup_id().expect_err("missing").to_string().contains("k3s"));
        fs::create_dir(root.path().join("k3s")).expect("made");
        kubelet.cgroup_id().expect("there");
    }
}
