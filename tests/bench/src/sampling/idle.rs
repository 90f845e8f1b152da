//! Whether cores sleep between packets: latency with one connection depends on that more than on anything else.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

const CPUS: &str = "/sys/devices/system/cpu";
const LATENCY: &str = "/dev/cpu_dma_latency";

/// How often cores have gone to sleep so far, all of them together. None where the kernel has no cpuidle.
pub(crate) fn sleeps() -> Option<u64> {
    let mut total = None;
    for cpu in fs::read_dir(CPUS).ok()?.flatten() {
        for state in fs::read_dir(cpu.path().join("cpuidle")).into_iter().flatten().flatten() {
            let field = |name: &str| fs::read_to_string(state.path().join(name)).unwrap_or_default().trim().to_owned();
            // A core in this state watches for work in a loop.
            if field("name") != "POLL"
                && let Ok(usage) = field("usage").parse::<u64>()
            {
                total = Some(total.unwrap_or(0) + usage);
            }
        }
    }
    total
}

/// The kernel's driver and governor for idle cores.
pub(crate) fn governor() -> String {
    let field = |name: &str| {
        fs::read_to_string(Path::new(CPUS).join("cpuidle").join(name)).unwrap_or_default().trim().to_owned()
    };
    match (field("current_driver"), field("current_governor_ro")) {
        (driver, _) if driver.is_empty() => "no cpuidle".to_owned(),
        (driver, governor) if governor.is_empty() || governor == driver => driver,
        (driver, governor) => format!("{driver}, governor {governor}"),
    }
}

/// Keeps all cores from sleeping until dropped.
#[derive(Debug)]
pub(crate) struct Awake {
    // The request is in force as long as the file is open (Linux, admin-guide/pm/cpuidle.rst).
    _request: File,
}

impl Awake {
    /// Asks for a latency of 0 microseconds.
    ///
    /// # Errors
    /// The kernel has no such device.
    pub(crate) fn ask() -> Result<Self> {
        let why = || format!("{LATENCY}, by which --awake works");
        let mut request = OpenOptions::new().write(true).open(LATENCY).with_context(why)?;
        request.write_all(&0_i32.to_ne_bytes()).with_context(why)?;
        Ok(Self { _request: request })
    }
}
