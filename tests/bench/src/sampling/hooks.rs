//! What the eBPF programs at sockets cost, by the kernel's own count (sysctl kernel.bpf_stats_enabled).

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// Programs that run in socket(), connect() and TCP's events: BPF_PROG_TYPE_CGROUP_SOCK, _SOCK_OPS, _CGROUP_SOCK_ADDR
/// (include/uapi/linux/bpf.h). Those at interfaces run for packets.
const AT_SOCKETS: [&str; 3] = ["9", "13", "18"];

/// Whether the kernel counts now; to be given to [`set_counting`] in the end.
pub(crate) fn counting() -> Option<String> {
    fs::read_to_string(SWITCH).ok()
}

/// Sets whether the kernel counts. A kernel without the switch does not.
pub(crate) fn set_counting(value: &str) {
    // Nothing else depends on it: without counts there is one metric less.
    let _ = fs::write(SWITCH, value.trim());
}

/// While it lives, the kernel counts the time of eBPF programs.
#[derive(Debug)]
pub(crate) struct Counting {
    before: String,
}

impl Counting {
    /// None where the kernel cannot.
    pub(crate) fn start() -> Option<Self> {
        let before = counting()?;
        set_counting("1");
        Some(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        set_counting(&self.before);
    }
}

/// Microseconds that the programs at sockets of one daemon have run so far, for whatever socket.
pub(crate) fn run_time(daemon: u32) -> Result<f64> {
    let path = format!("/proc/{daemon}/fdinfo");
    let mut programs = BTreeMap::new();
    for entry in fs::read_dir(&path).with_context(|| format!("reading {path}"))?.flatten() {
        // A descriptor may be closed meanwhile.
        programs.extend(fs::read_to_string(entry.path()).ok().and_then(|text| program(&text)));
    }
    Ok(programs.values().sum::<f64>() / 1000.0)
}

/// The id and the nanoseconds of a program at sockets, from its descriptor's information.
fn program(text: &str) -> Option<(u64, f64)> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    AT_SOCKETS.contains(&field("prog_type")?).then_some(())?;
    Some((field("prog_id")?.parse().ok()?, field("run_time_ns")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_at_sockets_count() {
        let text = |kind| format!("pos:\t0\nprog_type:\t{kind}\nprog_id:\t7\nrun_time_ns:\t1500\nrun_cnt:\t3\n");
        assert_eq!(program(&text(18)), Some((7, 1500.0)));
        assert_eq!(program(&text(3)), None);
        assert_eq!(program("pos:\t0\nflags:\t02\n"), None);
    }
}
