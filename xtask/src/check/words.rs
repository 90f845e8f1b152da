//! Words that may not stand in some folders: what they mean is decided elsewhere, or is not finished.

use super::Violation;
use super::source::Source;

struct Ban {
    /// What is not wanted, in code.
    words: &'static [&'static str],
    /// Folders that the rule is about; empty for all.
    within: &'static [&'static str],
    /// Folders that it leaves alone.
    except: &'static [&'static str],
    remedy: &'static str,
}

/// The crates that compute and do nothing else.
const PURE: &[&str] =
    &["crates/mesh-core/src/", "crates/mesh-abi/src/", "crates/mesh-http1/src/", "crates/mesh-signals/src/"];

const BANS: &[Ban] = &[
    Ban {
        words: &["todo!", "unimplemented!", "dbg!"],
        within: &[],
        except: &[],
        remedy: "finish it, or return an error that says what is not there",
    },
    Ban {
        words: &["aya::", "use aya", "extern crate aya", "aya_obj::", "aya_log::"],
        within: &[],
        except: &["mesh-node/src/bpf/", "crates/mesh-abi/src/"],
        remedy: "only mesh-node/src/bpf/ knows aya: give that module a function that says what is wanted",
    },
    Ban {
        words: &["aya::maps", "aya::programs", "aya::Ebpf", "aya::EbpfLoader"],
        within: &["crates/mesh-abi/src/"],
        except: &[],
        remedy: "mesh-abi may implement aya::Pod and no more; loading belongs to mesh-node/src/bpf/",
    },
    Ban {
        words: &["Instant", "SystemTime", "UNIX_EPOCH", "RandomState", "getrandom", "fastrand", "rand::"],
        within: PURE,
        except: &[],
        remedy: "a pure crate reads no clock and makes no random number: take them as arguments",
    },
    Ban {
        words: &[
            "std::fs",
            "std::io",
            "std::env",
            "std::process",
            "std::thread",
            "std::os",
            "println!",
            "eprintln!",
            "print!",
        ],
        within: PURE,
        except: &[],
        remedy: "a pure crate does no I/O: take the bytes as an argument, return what is to be written",
    },
    Ban {
        words: &["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "ToSocketAddrs", "async", "await"],
        within: PURE,
        except: &[],
        remedy: "a pure crate has no sockets and no async: do that in the program that calls it",
    },
    // clippy, which sees to this elsewhere, does not run on the eBPF crate.
    Ban {
        words: &[".unwrap()", "panic!"],
        within: &["mesh-ebpf/"],
        except: &["mesh-ebpf/src/main.rs"],
        remedy: "the kernel's verifier knows no panic: return early, with a counter",
    },
    Ban {
        words: &["mesh_lab", "mesh_shop", "mesh_traffic"],
        within: &["mesh-node/src/", "mesh-waypoint/src/", "mesh-control/src/", "mesh-ctl/src/", "crates/"],
        except: &[],
        remedy: "programs do not know their tests",
    },
];

/// Marks of unfinished work, in comments.
const MARKS: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];

pub(super) fn check(source: &Source) -> Vec<Violation> {
    let starts = |folders: &[&str]| folders.iter().any(|folder| source.path.starts_with(folder));
    let mut violations = Vec::new();
    for ban in BANS.iter().filter(|ban| (ban.within.is_empty() || starts(ban.within)) && !starts(ban.except)) {
        for word in ban.words {
            for offset in source.words(word) {
                let message = format!("`{word}`: {}", ban.remedy);
                violations.push(Violation::new(&source.path, source.line_of(offset), message));
            }
        }
    }
    for (index, comment) in source.comments.lines().enumerate() {
        if let Some(mark) = comment.split(|c: char| !c.is_alphanumeric()).find(|word| MARKS.contains(word)) {
            let message = format!("{mark} in a comment: do it, or open an issue and say here what is so now");
            violations.push(Violation::new(&source.path, index + 1, message));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let mut lines: Vec<usize> =
            check(&Source::new(path, text)).into_iter().map(|violation| violation.line).collect();
        lines.dedup();
        lines
    }

    #[test]
    fn banned_words_are_found_where_they_are_banned() {
        let cases = [
            ("mesh-ctl/src/a.rs", "fn a() {\n    todo!()\n}\n", vec![2]),
            ("mesh-ctl/src/a.rs", "// TODO: later\n", vec![1]),
            ("mesh-node/src/proxy/a.rs", "use aya::maps::HashMap;\n", vec![1]),
            ("mesh-node/src/proxy.rs", "use aya;\n", vec![1]),
            ("tests/e2e/tests/a.rs", "let m = aya::maps::HashMap::new();\n", vec![1]),
            ("crates/mesh-abi/src/lib.rs", "use aya::maps::HashMap;\n", vec![1]),
            ("crates/mesh-core/src/a.rs", "let a = std::time::Instant::now();\n", vec![1]),
            ("crates/mesh-core/src/a.rs", "\nuse std::{fs, collections};\n", vec![]),
            ("crates/mesh-core/src/a.rs", "\nstd::fs::read(a);\n", vec![2]),
            ("crates/mesh-core/src/a.rs", "async fn a() {}\n", vec![1]),
            ("mesh-ebpf/src/a.rs", "a.unwrap();\n", vec![1]),
            ("mesh-node/src/a.rs", "use mesh_lab::Lab;\n", vec![1]),
        ];
        for (path, text, expected) in cases {
            assert_eq!(lines(path, text), expected, "{path}: {text}");
        }
    }

    #[test]
    fn the_same_words_pass_elsewhere() {
        let cases = [
            ("mesh-node/src/bpf/maps.rs", "use aya::maps::HashMap;\n"),
            ("crates/mesh-abi/src/lib.rs", "unsafe impl aya::Pod for A {}\n"),
            ("mesh-ebpf/src/a.rs", "use aya_ebpf::maps::HashMap;\n"),
            ("mesh-node/src/a.rs", "let a = Instant::now(); let b = \"todo!\"; // todo! is a macro\n"),
            ("crates/mesh-core/src/a.rs", "use std::net::IpAddr; use std::time::Duration;\n"),
        ];
        for (path, text) in cases {
            assert_eq!(lines(path, text), [0_usize; 0], "{path}: {text}");
        }
    }
}
