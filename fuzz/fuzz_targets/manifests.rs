//! A file of manifests to a snapshot and findings.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mesh_config::{Options, load};

/// A directory in memory, for the read is a part of what is tested.
static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = PathBuf::from(format!("/dev/shm/mesh-fuzz-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("/dev/shm is writable");
    directory
});

fuzz_target!(|text: &[u8]| {
    fs::write(DIRECTORY.join("fuzzed.yaml"), text).expect("written");
    let config = load(&DIRECTORY, &Options::default()).expect("no content makes a directory unreadable");
    for finding in config.findings.iter() {
        let line = finding.to_string();
        assert!(!line.contains('\n'), "a finding is one line: {line:?}");
    }
    let snapshot = &config.snapshot;
    for workload in snapshot.workloads() {
        for address in &workload.addresses {
            assert!(snapshot.workload_by_address(*address).is_some());
        }
    }
});
