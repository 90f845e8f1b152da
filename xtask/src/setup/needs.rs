//! The table of what the project's commands need from the operating system.

use std::path::Path;

use crate::step;

/// What somebody is about to do; decides what must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building the programs and the eBPF object.
    Build,
    /// `cargo xtask check`.
    Check,
    /// Running the lab: tests, demo.
    Lab,
    /// Running the bench.
    Bench,
    /// Booting other kernels.
    Kernels,
    /// A Kubernetes on this machine.
    Kube,
}

/// Everything, as `cargo xtask setup` and `cargo xtask test` want it.
pub(crate) const ALL: [Purpose; 6] =
    [Purpose::Build, Purpose::Check, Purpose::Lab, Purpose::Bench, Purpose::Kernels, Purpose::Kube];

/// How to see that something is there.
#[derive(Clone, Copy, Debug)]
enum Proof {
    Program(&'static str),
    File(&'static str),
}

/// One thing that the project needs from the operating system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// What people call it.
    pub(super) name: &'static str,
    /// What it is for, in a few words.
    pub(super) why: &'static str,
    /// Debian's package.
    package: &'static str,
    proof: Proof,
    purpose: Purpose,
    /// Wanted only for the eBPF toolchain made of Debian's packages; rustup's nightly does without.
    debian_toolchain: bool,
}

const fn program(name: &'static str, package: &'static str, purpose: Purpose, why: &'static str) -> Need {
    Need { name, why, package, proof: Proof::Program(name), purpose, debian_toolchain: false }
}

const fn file(
    name: &'static str,
    path: &'static str,
    package: &'static str,
    purpose: Purpose,
    why: &'static str,
) -> Need {
    Need { name, why, package, proof: Proof::File(path), purpose, debian_toolchain: false }
}

const fn toolchain(name: &'static str, path: &'static str, package: &'static str, why: &'static str) -> Need {
    Need { name, why, package, proof: Proof::File(path), purpose: Purpose::Build, debian_toolchain: true }
}

/// Debian's Rust compiler, with the eBPF targets of the same version beside it.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Cargo of the same packages.
pub(crate) const DEBIAN_CARGO: &str = "/usr/bin/cargo";
/// The prebuilt core library for eBPF.
pub(crate) const DEBIAN_BPF_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";
/// LLVM of that compiler's version, which bpf-linker links with.
pub(crate) const DEBIAN_LLVM: &str = "/usr/lib/llvm-22";

const NEEDS: &[Need] = &[
    program("cc", "gcc", Purpose::Build, "C compiler and linker driver, for the cryptography library and for linking"),
    program("git", "git", Purpose::Check, "lists the files to check"),
    file("CA certificates", "/etc/ssl/certs/ca-certificates.crt", "ca-certificates", Purpose::Build, "for crates.io"),
    toolchain("rustc 1.96 of Debian", DEBIAN_RUSTC, "rustc-web", "compiles the eBPF programs"),
    toolchain("cargo 1.96 of Debian", DEBIAN_CARGO, "cargo-web", "builds the eBPF programs"),
    toolchain(
        "Rust's core library for eBPF",
        DEBIAN_BPF_CORE,
        "libstd-rust-web-dev-bpf",
        "the eBPF programs link with it",
    ),
    toolchain("LLVM 22", "/usr/lib/llvm-22/bin/llvm-config", "llvm-22-dev", "bpf-linker makes eBPF byte code with it"),
    program("bpftool", "bpftool", Purpose::Lab, "takes hooks and map entries away, to see them come back"),
    program("ip", "iproute2", Purpose::Lab, "shows namespaces, links and routes"),
    program("nft", "nftables", Purpose::Lab, "Service addresses without the mesh, as kube-proxy does them"),
    program("tcpdump", "tcpdump", Purpose::Lab, "captures what is on the wire"),
    program("nsenter", "util-linux", Purpose::Lab, "enters a pod's namespaces"),
    program("sysctl", "procps", Purpose::Lab, "sets a namespace's network options"),
    program("curl", "curl", Purpose::Lab, "an unmodified HTTP client"),
    program("openssl", "openssl", Purpose::Lab, "makes hostile TLS clients and certificates"),
    program("socat", "socat", Purpose::Lab, "an unmodified TCP client and server"),
    program("ping", "iputils-ping", Purpose::Lab, "checks the lab's routes"),
    program("nghttp", "nghttp2-client", Purpose::Lab, "an HTTP/2 client"),
    program("h2load", "nghttp2-client", Purpose::Lab, "an HTTP/2 client that asks often on one connection"),
    program("prometheus", "prometheus", Purpose::Lab, "scrapes the daemons; its promtool tests the rules"),
    program("chromium", "chromium", Purpose::Lab, "shows the dashboard's page"),
    file(
        "Python's virtual environments",
        "/usr/share/python-wheels",
        "python3-venv",
        Purpose::Lab,
        "install Envoy from PyPI, as a sidecar of Istio's",
    ),
    program("iperf3", "iperf3", Purpose::Bench, "TCP throughput"),
    program("wrk", "wrk", Purpose::Bench, "HTTP load"),
    program("nginx", "nginx-light", Purpose::Bench, "an HTTP server that costs little"),
    program(
        "go",
        "golang-go",
        Purpose::Kube,
        "builds Kubernetes (1.26 or newer; see go.dev/dl where Debian's is older)",
    ),
    program("containerd", "containerd", Purpose::Kube, "runs the nodes' containers"),
    program("runc", "runc", Purpose::Kube, "runs the nodes' containers"),
    file(
        "network plugins for containers",
        "/usr/lib/cni/bridge",
        "containernetworking-plugins",
        Purpose::Kube,
        "connect pods to their node",
    ),
    program("iptables", "iptables", Purpose::Kube, "forwards ports of a node to its pods"),
    program("conntrack", "conntrack", Purpose::Kube, "kube-proxy forgets connections of endpoints that are gone"),
    program("qemu-system-x86_64", "qemu-system-x86", Purpose::Kernels, "boots other kernels"),
    file("SeaBIOS", "/usr/share/seabios/bios-256k.bin", "seabios", Purpose::Kernels, "QEMU's firmware"),
    program("xz", "xz-utils", Purpose::Kernels, "unpacks kernel modules"),
    program("strip", "binutils", Purpose::Kernels, "makes the programs small enough for an initramfs"),
    program("cpio", "cpio", Purpose::Kernels, "packs the other kernels' root file system"),
    file(
        "static busybox",
        "/bin/busybox",
        "busybox-static",
        Purpose::Kernels,
        "the first program in the other kernels",
    ),
];

/// What `purposes` need and is not here.
pub(super) fn missing(purposes: &[Purpose]) -> Vec<Need> {
    let elsewhere = !Path::new("/etc/debian_version").exists();
    NEEDS
        .iter()
        .filter(|need| purposes.contains(&need.purpose))
        .filter(|need| !(elsewhere && need.debian_toolchain))
        .filter(|need| !match need.proof {
            Proof::Program(program) => step::find(program).is_some(),
            Proof::File(path) => Path::new(path).exists(),
        })
        .copied()
        .collect()
}

/// Debian's packages for `needs`, each once.
pub(super) fn packages(needs: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = needs.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Whether the Debian packages that build eBPF are here.
pub(crate) fn debian_toolchain_present() -> bool {
    NEEDS.iter().filter(|need| need.debian_toolchain).all(|need| match need.proof {
        Proof::Program(program) => step::find(program).is_some(),
        Proof::File(path) => Path::new(path).exists(),
    })
}
