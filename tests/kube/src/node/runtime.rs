//! The container runtimes of nodes: an old containerd and a new one, since each has its own ways of telling of pods.

use std::path::{Path, PathBuf};

use crate::programs::Programs;

use super::config::PAUSE;

/// Where every node's containerd listens.
pub(crate) const SOCKET: &str = "/run/containerd/containerd.sock";
/// Debian's place for network plugins.
const PLUGINS: &str = "/usr/lib/cni";
/// Where what is built of containerd 2 is, in the directory of programs.
const BUILT: &str = "containerd-2";

/// A node's runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// Debian's, of the version 1.6: it knows no NRI.
    Containerd1,
    /// The newest, which has NRI in force.
    Containerd2,
}

impl Runtime {
    /// That of the node with this index.
    pub(crate) fn of(index: usize) -> Self {
        if index == 0 { Self::Containerd1 } else { Self::Containerd2 }
    }

    /// One of its programs.
    pub(crate) fn program(self, programs: &Programs, name: &str) -> PathBuf {
        match self {
            Self::Containerd1 => PathBuf::from(name),
            Self::Containerd2 => programs.directory().join(BUILT).join(name),
        }
    }

    /// Its configuration. Without CAP_SYS_RESOURCE no oom_score_adj can be lowered. `directory` is the node's own.
    pub(super) fn config(self, directory: &Path, programs: &Programs) -> String {
        let place = directory.display();
        match self {
            Self::Containerd1 => format!(
                r#"version = 2
root = "{place}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{PLUGINS}"
conf_dir = "{place}/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#
            ),
            Self::Containerd2 => format!(
                r#"version = 3
root = "{place}/containerd"
state = "/run/containerd"
imports = ["{place}/containerd.d/*.toml"]
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.blockfile"]
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{PLUGINS}"]
conf_dir = "{place}/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{shim}"
"#,
                shim = self.program(programs, "containerd-shim-runc-v2").display()
            ),
        }
    }
}
