//! Whose lab is it: the name that everything of a lab carries.

use std::fmt;
use std::fs;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// The first part of every name that labs give to namespaces, cgroups and directories.
const PREFIX: &str = "meshlab-";

/// A lab's name: the owning process (its pid and its start time, as pids are reused) and a number within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LabId {
    pid: u32,
    started: u64,
    number: u32,
}

impl LabId {
    /// The next name for a lab of this process.
    pub(crate) fn next() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let pid = process::id();
        let started =
            start_time(pid).with_context(|| format!("reading this process's start time from /proc/{pid}/stat"))?;
        Ok(Self { pid, started, number: NUMBER.fetch_add(1, Ordering::Relaxed) })
    }

    /// The lab that `name` belongs to: a lab's own name, or one with a `.` and more after it.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let own = name.split('.').next()?;
        let mut parts = own.strip_prefix(PREFIX)?.split('-');
        let id = Self {
            pid: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(id)
    }

    /// Whether the process that made the lab still runs.
    pub(crate) fn owner_lives(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

impl fmt::Display for LabId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}-{}", self.pid, self.started, self.number)
    }
}

/// Clock ticks from boot to the process's start (proc(5), field 22 of stat); none for a process that is gone or a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything, spaces and parentheses too.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_lab() {
        let id = LabId::next().unwrap();
        assert_eq!(LabId::of(&id.to_string()), Some(id));
        assert_eq!(LabId::of(&format!("{id}.node-a.eth")), Some(id));
    }

    #[test]
    fn other_peoples_names_are_nobodys_lab() {
        for name in ["", "meshlab", "meshlab-1", "meshlab-1-2", "meshlab-1-2-3-4", "meshlab-a-2-3", "cni-1-2-3"] {
            assert_eq!(LabId::of(name), None, "{name}");
        }
    }

    #[test]
    fn a_reused_pid_does_not_keep_a_lab_alive() {
        let id = LabId::next().unwrap();
        assert!(id.owner_lives());
        assert!(!LabId { started: id.started + 1, ..id }.owner_lives());
    }
}
