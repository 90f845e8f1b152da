//! A clock of a program's own, which a test sets: only CLOCK_REALTIME of that process differs, as on a node whose clock is
//! wrong. (A time namespace shifts no CLOCK_REALTIME.)

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use mesh_lab::Lab;

/// Stands between a program and its C library's clock_gettime(). It reads the shift, in seconds, from a file that is mapped.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile const long long *shift;

__attribute__((constructor)) static void map_shift(void) {
    int fd = open(getenv("MESH_TEST_CLOCK"), O_RDONLY);
    void *page = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, fd, 0);
    if (fd < 0 || page == MAP_FAILED) _exit(99);
    shift = page;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    long result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && shift) time->tv_sec += *shift;
    return result;
}
"#;

/// A clock that can be set.
pub struct Clock {
    library: PathBuf,
    shift: PathBuf,
}

impl Clock {
    /// Makes one that is right.
    pub fn new(lab: &Lab) -> Result<Self> {
        let (source, library) = (lab.home().join("clock.c"), lab.home().join("clock.so"));
        fs::write(&source, SOURCE)?;
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output();
        let compiled = compiled.context("a C compiler makes the clock: is cc installed, which Rust links with?")?;
        ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let clock = Self { library, shift: lab.home().join("clock.shift") };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it so many seconds ahead of the true time, or behind it.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // In place: the file is mapped.
        let file = fs::File::options().create(true).truncate(false).write(true).open(&self.shift)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &seconds.to_ne_bytes(), 0)?;
        Ok(())
    }

    /// The environment of a program that goes by it.
    pub fn environment(&self) -> Vec<(String, String)> {
        [("LD_PRELOAD", &self.library), ("MESH_TEST_CLOCK", &self.shift)]
            .map(|(name, path)| (name.to_owned(), path.display().to_string()))
            .into()
    }
}
