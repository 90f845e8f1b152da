//! Puts the eBPF object where `include_bytes_aligned!` finds it.

use std::{env, fs, path::PathBuf};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let object =
        env::var_os("MESH_EBPF_OBJECT").map_or_else(|| manifest.join("../target/bpf/mesh-ebpf.o"), PathBuf::from);
    println!("cargo:rerun-if-changed={}", object.display());
    println!("cargo:rerun-if-env-changed=MESH_EBPF_OBJECT");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("mesh-ebpf.o");
    if let Err(error) = fs::copy(&object, &out) {
        println!("cargo::error=no eBPF object at {}: {error}; build it with `cargo xtask ebpf`", object.display());
    }
}
