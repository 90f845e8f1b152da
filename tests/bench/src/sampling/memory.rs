//! A process's memory.

use anyhow::{Context, Result};

/// Memory of one process in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memory {
    /// Resident, shared pages of its program file included.
    pub(crate) resident: f64,
    /// Resident, each shared page divided by the number of processes that have it.
    pub(crate) proportional: f64,
}

impl Memory {
    /// What a process has now.
    pub(crate) fn of(process: u32) -> Result<Self> {
        let path = format!("/proc/{process}/smaps_rollup");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        parse(&text).with_context(|| format!("{path} lacks Rss or Pss: {text:?}"))
    }
}

fn parse(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
        kib.map(|kib| kib * 1024.0)
    };
    Some(Memory { resident: bytes("Rss:")?, proportional: bytes("Pss:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rollup_is_read_in_bytes() {
        let text =
            "00400000-7fff [rollup]\nRss:                1884 kB\nPss:                 472 kB\nPss_Dirty: 84 kB\n";
        assert_eq!(parse(text), Some(Memory { resident: 1884.0 * 1024.0, proportional: 472.0 * 1024.0 }));
        assert_eq!(parse(""), None);
    }
}
