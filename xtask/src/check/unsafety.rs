//! Unsafe code: in few places, and each use says which invariant makes it sound.

use super::Violation;
use super::source::Source;

/// Crates whose work cannot be done without; all others forbid it.
const CRATES: [&str; 4] = ["crates/mesh-abi/", "crates/mesh-netlink/", "mesh-ebpf/", "mesh-node/"];

/// Where in them it may stand.
const FILES: &[&str] = &[
    "crates/mesh-abi/src/",
    "crates/mesh-netlink/src/tcp_info.rs",
    // An allocator that counts.
    "crates/mesh-transport/tests/memory.rs",
    "mesh-ebpf/src/",
    "mesh-node/src/bpf/",
    "mesh-node/src/memory.rs",
    "mesh-node/src/netns.rs",
    "mesh-node/src/pods/sandbox.rs",
];

pub(super) fn check(source: &Source) -> Vec<Violation> {
    let mut violations = unexplained(source);
    let allowed = CRATES.iter().any(|folder| source.path.starts_with(folder));
    if is_crate_root(&source.path) && !allowed && !source.code.contains("#![forbid(unsafe_code)]") {
        let message = "a crate root without #![forbid(unsafe_code)]: add it below the crate's documentation";
        violations.push(Violation::new(&source.path, 1, message.to_owned()));
    }
    violations
}

fn is_crate_root(path: &str) -> bool {
    path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs") || path.contains("/src/bin/")
}

fn unexplained(source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    for offset in source.words("unsafe") {
        let after = source.code[offset + "unsafe".len()..].trim_start();
        if !(after.starts_with('{') || after.starts_with("impl")) {
            continue;
        }
        let line = source.line_of(offset);
        if !FILES.iter().any(|file| source.path.starts_with(file)) {
            let message =
                format!("unsafe belongs to {}: find a safe crate (rustix, socket2) or do it there", FILES.join(", "));
            violations.push(Violation::new(&source.path, line, message));
        }
        if !explained(source, line) {
            let message = "unsafe without a `// SAFETY:` comment above it: name the invariant that makes it sound";
            violations.push(Violation::new(&source.path, line, message.to_owned()));
        }
    }
    violations
}

/// Whether a SAFETY comment stands on the line, or above it with nothing but the same statement between.
fn explained(source: &Source, line: usize) -> bool {
    let comments: Vec<&str> = source.comments.lines().collect();
    let code: Vec<&str> = source.code.lines().collect();
    let mut at = line - 1;
    loop {
        if comments.get(at).is_some_and(|comment| comment.contains("SAFETY:")) {
            return true;
        }
        let Some(above) = at.checked_sub(1) else { return false };
        let previous = code.get(above).map_or("", |code| code.trim());
        let comment = comments.get(above).map_or("", |comment| comment.trim());
        if (previous.is_empty() && comment.is_empty()) || previous.ends_with([';', '{', '}']) && comment.is_empty() {
            return false;
        }
        at = above;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&Source::new(path, text)).into_iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn an_unexplained_unsafe_is_refused() {
        let cases = [
            ("fn a() {\n    unsafe { b() }\n}\n", vec![2]),
            ("// SAFETY: x\nlet c = 1;\nunsafe { b() };\n", vec![3]),
            ("unsafe impl Send for A {}\n", vec![1]),
            ("let a = \"// SAFETY: no\"; unsafe { b() };\n", vec![1]),
        ];
        for (text, expected) in cases {
            assert_eq!(lines("mesh-node/src/bpf/a.rs", text), expected, "{text}");
        }
    }

    #[test]
    fn an_explained_unsafe_passes() {
        let cases = [
            "// SAFETY: x\nunsafe { b() };\n",
            "// SAFETY: x\n// and y\nlet a =\n    unsafe { b() };\n",
            "// SAFETY: x\n#[cfg(test)]\nunsafe impl Send for A {}\n",
            "unsafe fn a() {}\n#[unsafe(no_mangle)]\nunsafe extern \"C\" {}\n",
            "let a = unsafe { b() }; // SAFETY: x\n",
        ];
        for text in cases {
            assert_eq!(lines("mesh-node/src/bpf/a.rs", text), [0_usize; 0], "{text}");
        }
    }

    #[test]
    fn unsafe_stands_in_few_files() {
        let text = "// SAFETY: x\nunsafe { b() };\n";
        assert_eq!(lines("mesh-node/src/netns.rs", text), [0_usize; 0]);
        assert_eq!(lines("mesh-node/src/workers.rs", text), [2]);
        assert_eq!(lines("tests/lab/src/netns.rs", text), [2]);
    }

    #[test]
    fn a_crate_root_forbids_unsafe_code() {
        assert_eq!(lines("mesh-ctl/src/main.rs", "//! x\n// #![forbid(unsafe_code)]\nfn main() {}\n"), [1]);
        assert_eq!(lines("mesh-ctl/src/main.rs", "//! x\n#![forbid(unsafe_code)]\nfn main() {}\n"), [0_usize; 0]);
        assert_eq!(lines("mesh-ctl/src/other.rs", "fn a() {}\n"), [0_usize; 0]);
        assert_eq!(lines("mesh-node/src/main.rs", "fn main() {}\n"), [0_usize; 0]);
    }
}
