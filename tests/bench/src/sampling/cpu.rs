//! Processor time: of the lab, of its proxies, of the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

/// Microseconds of a tick in /proc/stat and /proc/PID/stat: USER_HZ is 100 for programs on every architecture of ours.
const TICK_US: f64 = 10_000.0;

/// Processor time in microseconds, at a moment or between two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuTime {
    /// User mode, everything in the lab's cgroup.
    pub(crate) user: f64,
    /// Kernel mode, the same; with ksoftirqd, which takes over softirqs under load, and without [`Self::softirq`].
    pub(crate) kernel: f64,
    /// Interrupts and softirqs of the machine, sampled by its tick.
    pub(crate) softirq: f64,
    /// User mode of the proxies alone.
    pub(crate) proxy_user: f64,
    /// Kernel mode of the proxies alone.
    pub(crate) proxy_kernel: f64,
    /// Everything that ran on the machine and was not idle.
    pub(crate) machine: f64,
    /// What a hypervisor took away.
    pub(crate) stolen: f64,
    /// Time by the clock.
    pub(crate) elapsed: f64,
}

impl CpuTime {
    /// What the lab used in all.
    pub(crate) fn lab(&self) -> f64 {
        self.user + self.kernel + self.softirq
    }

    /// What the proxies used.
    pub(crate) fn proxies(&self) -> f64 {
        self.proxy_user + self.proxy_kernel
    }

    /// What ran on the machine and was none of the lab's: noise.
    pub(crate) fn strangers(&self) -> f64 {
        (self.machine - self.lab()).max(0.0) + self.stolen
    }

    fn since(&self, start: &Self) -> Self {
        let softirq = self.softirq - start.softirq;
        Self {
            user: self.user - start.user,
            // The tick's softirqs are part of the time of the program that they interrupted.
            kernel: (self.kernel - start.kernel - softirq).max(0.0),
            softirq,
            proxy_user: self.proxy_user - start.proxy_user,
            proxy_kernel: self.proxy_kernel - start.proxy_kernel,
            machine: self.machine - start.machine,
            stolen: self.stolen - start.stolen,
            elapsed: self.elapsed - start.elapsed,
        }
    }
}

/// Reads processor times of one lab.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    cgroup: PathBuf,
    proxies: Vec<u32>,
    softirq_threads: Vec<u32>,
    started: Instant,
    start: CpuTime,
}

impl CpuMeter {
    /// Begins to measure.
    pub(crate) fn start(lab: &str, proxies: Vec<u32>) -> Result<Self> {
        let cgroup = cgroup_mount()?.join(lab).join("cpu.stat");
        let mut meter = Self {
            cgroup,
            proxies,
            softirq_threads: softirq_threads()?,
            started: Instant::now(),
            start: CpuTime::default(),
        };
        meter.start = meter.now()?;
        Ok(meter)
    }

    /// The time used since the start.
    pub(crate) fn used(&self) -> Result<CpuTime> {
        Ok(self.now()?.since(&self.start))
    }

    fn now(&self) -> Result<CpuTime> {
        let (user, system) = of_cgroup(&read(&self.cgroup)?).context("cpu.stat lacks user_usec or system_usec")?;
        let mut time = of_machine(&read(Path::new("/proc/stat"))?).context("/proc/stat begins with no cpu line")?;
        time.elapsed = self.started.elapsed().as_secs_f64() * 1e6;
        time.user = user;
        time.kernel = system;
        for thread in &self.softirq_threads {
            let text = read(Path::new(&format!("/proc/{thread}/schedstat")))?;
            time.kernel += first_number(&text).context("schedstat is empty")? / 1000.0;
        }
        for process in &self.proxies {
            let text = read(Path::new(&format!("/proc/{process}/stat"))).context("has a proxy ended?")?;
            let (user, kernel) = of_process(&text).context("/proc/PID/stat has too few fields")?;
            time.proxy_user += user;
            time.proxy_kernel += kernel;
        }
        Ok(time)
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// Where cgroup v2 is mounted.
fn cgroup_mount() -> Result<PathBuf> {
    let mounts = read(Path::new("/proc/self/mounts"))?;
    let found =
        mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields.get(2) == Some(&"cgroup2"));
    found.map(|fields| PathBuf::from(fields[1])).context("no cgroup v2 is mounted")
}

fn softirq_threads() -> Result<Vec<u32>> {
    let processes = fs::read_dir("/proc").context("reading /proc")?;
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one =
        |id: &u32| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"));
    Ok(ids.filter(is_one).collect())
}

/// User and kernel time in a cgroup's cpu.stat.
fn of_cgroup(text: &str) -> Option<(f64, f64)> {
    let field = |name: &str| text.lines().find_map(|line| first_number(line.strip_prefix(name)?));
    Some((field("user_usec ")?, field("system_usec ")?))
}

/// What /proc/stat's first line says (proc(5)): user nice system idle iowait irq softirq steal.
fn of_machine(text: &str) -> Option<CpuTime> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
    Some(CpuTime {
        softirq: (irq + softirq) * TICK_US,
        machine: (user + nice + system + irq + softirq) * TICK_US,
        stolen: steal * TICK_US,
        ..CpuTime::default()
    })
}

/// User and kernel time of a process and all its threads: fields 14 and 15 of /proc/PID/stat (proc(5)).
fn of_process(text: &str) -> Option<(f64, f64)> {
    // The name, field 2, may hold blanks and parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11).map(str::parse::<f64>);
    let (user, kernel) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some((user * TICK_US, kernel * TICK_US))
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let text = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 3 0 100 1 2";
        assert_eq!(of_process(text), Some((2_500_000.0, 500_000.0)));
        assert_eq!(of_process("42 (cut) S 1"), None);
    }

    #[test]
    fn the_machines_line_is_read_by_position() {
        let time = of_machine("cpu  100 1 50 900 7 2 3 4 0 0\ncpu0 1 1 1\n").expect("a line");
        assert_eq!((time.softirq, time.machine, time.stolen), (50_000.0, 1_560_000.0, 40_000.0));
        assert_eq!(of_machine("intr 5"), None);
    }

    #[test]
    fn a_cgroups_fields_are_found_by_name() {
        assert_eq!(of_cgroup("usage_usec 30\nuser_usec 10\nsystem_usec 20\n"), Some((10.0, 20.0)));
        assert_eq!(of_cgroup("usage_usec 30\n"), None);
    }

    #[test]
    fn softirqs_are_not_counted_twice() {
        let start = CpuTime::default();
        let end = CpuTime { user: 5.0, kernel: 10.0, softirq: 4.0, machine: 20.0, stolen: 1.0, ..start };
        let used = end.since(&start);
        assert_eq!((used.kernel, used.softirq, used.lab(), used.strangers()), (6.0, 4.0, 15.0, 6.0));
    }
}
