//! Tells when the process that holds a pod's namespaces has ended.

use std::{io, os::fd::OwnedFd};

use mesh_core::WorkloadUid;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    task::AbortHandle,
};

/// Watches a process until it ends or this is dropped.
pub(super) struct SandboxWatch(AbortHandle);

impl SandboxWatch {
    /// Sends `uid` to `ended` once the process has ended.
    ///
    /// # Errors
    /// The process has ended already, or the kernel has no pidfd (Linux 5.3).
    pub(super) fn start(pid: u32, uid: WorkloadUid, ended: mpsc::Sender<WorkloadUid>) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = raw.ok_or(io::ErrorKind::InvalidInput)?;
        let process: OwnedFd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // A pidfd becomes readable when its process ends.
        // SAFETY: the pidfd is owned by the registration and is not replaced.
        let process = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }?;
        let task = tokio::spawn(async move {
            if process.readable().await.is_ok() {
                // The receiver is gone only when the daemon stops.
                let _ = ended.send(uid).await;
            }
        });
        Ok(Self(task.abort_handle()))
    }
}

impl Drop for SandboxWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
