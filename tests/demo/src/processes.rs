//! Which processes run in a pod, as /proc shows them: by the cgroup that kubelet named after the pod's uid.

use std::fs;

use anyhow::{Context as _, Result};
use mesh_lab::Pod;

/// Clock ticks a second in /proc (`USER_HZ`, which Linux shows user space as 100 on every architecture that runs this).
const TICKS: u64 = 100;

/// A process of a pod.
#[derive(Clone, Debug)]
pub struct Running {
    /// The pod's name.
    pub pod: String,
    /// The program's name.
    pub program: String,
    /// The process id.
    pub pid: u32,
    /// Clock ticks from boot to its start; with the pid it names one process and no other.
    started: u64,
}

/// The same process, whatever program it has become by execve() since.
impl PartialEq for Running {
    fn eq(&self, other: &Self) -> bool {
        (&self.pod, self.pid, self.started) == (&other.pod, other.pid, other.started)
    }
}

impl Running {
    /// Seconds from boot to the process's start.
    pub fn started(&self) -> String {
        format!("{}.{:02}", self.started / TICKS, self.started % TICKS)
    }
}

/// All processes of the pods, in order.
pub fn of(pods: &[Pod]) -> Result<Vec<Running>> {
    let mut uids = Vec::new();
    for pod in pods {
        let uid = pod.uid()?;
        // Kubelet's systemd driver writes underscores.
        uids.push((pod.name(), uid.replace('-', "_"), uid));
    }
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("reading /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let cgroup = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let Some((pod, ..)) = uids.iter().find(|(_, slice, uid)| cgroup.contains(slice) || cgroup.contains(uid)) else {
            continue;
        };
        // A process that ended meanwhile is none.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some((program, started)) = read_stat(&stat) {
            found.push(Running { pod: (*pod).to_owned(), program, pid, started });
        }
    }
    found.sort_by(|one, other| (&one.pod, one.pid).cmp(&(&other.pod, other.pid)));
    Ok(found)
}

/// A pod's main program: what its command runs, or the process that only holds the pod.
pub fn main_of<'a>(running: &'a [Running], pod: &str) -> Result<&'a Running> {
    let mut own = running.iter().filter(|process| process.pod == pod);
    let holder = own.clone().next().with_context(|| format!("nothing runs in {pod}"))?;
    Ok(own.find(|process| process.program.starts_with("mesh-")).unwrap_or(holder))
}

/// The program's name and its start time (proc(5), fields 2 and 22).
fn read_stat(stat: &str) -> Option<(String, u64)> {
    let (before, after) = stat.rsplit_once(')')?;
    let started = after.split_whitespace().nth(19)?.parse().ok()?;
    Some((before.split_once('(')?.1.to_owned(), started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_program_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 421337 9 9";
        assert_eq!(read_stat(stat), Some(("a) b (c".to_owned(), 421_337)));
        assert_eq!(read_stat("7 (gone"), None);
        let running = Running { pod: "p".into(), program: "x".into(), pid: 7, started: 421_307 };
        assert_eq!(running.started(), "4213.07");
    }
}
