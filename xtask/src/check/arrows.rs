//! Which crate may depend on which: ARCHITECTURE.md's arrows.

use anyhow::{Context, Result};
use toml::de::DeTable;

use super::Violation;

/// What a crate may depend on.
struct Row {
    package: &'static str,
    /// Packages of this repository.
    ours: &'static [&'static str],
    /// Packages of others, for what is built into programs; `None` leaves them free.
    others: Option<&'static [&'static str]>,
}

const fn row(package: &'static str, ours: &'static [&'static str]) -> Row {
    Row { package, ours, others: None }
}

const CONTROL: &[&str] = &[
    "mesh-admin",
    "mesh-admin-server",
    "mesh-ca",
    "mesh-core",
    "mesh-config",
    "mesh-kube",
    "mesh-transport",
    "mesh-xds",
];
const NODE: &[&str] = &[
    "mesh-abi",
    "mesh-admin",
    "mesh-admin-server",
    "mesh-ca",
    "mesh-core",
    "mesh-config",
    "mesh-kube",
    "mesh-otlp",
    "mesh-metrics",
    "mesh-netlink",
    "mesh-nri",
    "mesh-signals",
    "mesh-transport",
    "mesh-xds",
];
const WAYPOINT: &[&str] = &[
    "mesh-admin",
    "mesh-admin-server",
    "mesh-ca",
    "mesh-core",
    "mesh-config",
    "mesh-ext-authz",
    "mesh-http1",
    "mesh-jwt",
    "mesh-kube",
    "mesh-otlp",
    "mesh-metrics",
    "mesh-signals",
    "mesh-transport",
    "mesh-xds",
];
const FUZZ: &[&str] = &[
    "mesh-abi",
    "mesh-ca",
    "mesh-core",
    "mesh-config",
    "mesh-ext-authz",
    "mesh-http1",
    "mesh-jwt",
    "mesh-kube",
    "mesh-transport",
];
const CTL: &[&str] = &["mesh-admin", "mesh-core", "mesh-config", "mesh-jwt", "mesh-kube"];
const TEST: &[&str] = &[
    "mesh-kube-cluster",
    "mesh-ca",
    "mesh-xds",
    "mesh-docs",
    "mesh-metrics",
    "mesh-abi",
    "mesh-core",
    "mesh-config",
    "mesh-transport",
    "mesh-node",
    "mesh-lab",
    "mesh-frames",
    "mesh-bank",
    "mesh-shop",
    "mesh-traffic",
];

const ROWS: &[Row] = &[
    Row { package: "mesh-abi", ours: &[], others: Some(&["aya"]) },
    Row { package: "mesh-core", ours: &[], others: Some(&["regex", "thiserror", "serde"]) },
    Row { package: "mesh-admin", ours: &["mesh-core"], others: Some(&["serde"]) },
    row("mesh-admin-server", &["mesh-admin", "mesh-config", "mesh-core", "mesh-jwt", "mesh-netlink", "mesh-transport"]),
    row("mesh-ebpf", &["mesh-abi"]),
    row("mesh-config", &["mesh-core"]),
    row("mesh-transport", &["mesh-core", "mesh-netlink"]),
    row("mesh-ext-authz", &["mesh-core"]),
    row("mesh-ca", &["mesh-core", "mesh-transport"]),
    row("mesh-xds", &["mesh-ca", "mesh-config", "mesh-core", "mesh-transport"]),
    row("mesh-jwt", &["mesh-core"]),
    row("mesh-kube", &["mesh-config"]),
    row("mesh-otlp", &["mesh-core"]),
    Row { package: "mesh-metrics", ours: &["mesh-core"], others: Some(&["prometheus"]) },
    row("mesh-netlink", &[]),
    row("mesh-nri", &[]),
    Row { package: "mesh-http1", ours: &[], others: Some(&["bytes", "http", "httparse", "memchr", "thiserror"]) },
    Row { package: "mesh-signals", ours: &[], others: Some(&["memchr"]) },
    row("mesh-node", NODE),
    row("mesh-waypoint", WAYPOINT),
    row("mesh-control", CONTROL),
    row("mesh-ctl", CTL),
    row("mesh-fuzz", FUZZ),
    row("xtask", &[]),
];

/// Packages that may be depended on by these alone: (package, the crates).
const RESERVED: &[(&str, &[&str])] = &[
    ("aya", &["mesh-node", "mesh-abi"]),
    ("aya-log", &["mesh-node"]),
    ("aya-obj", &["mesh-node"]),
    ("kube", &["mesh-kube", "mesh-control", "mesh-ctl"]),
];

const TABLE: &str = "xtask/src/check/arrows.rs";

/// Checks one `Cargo.toml`; `ours` are the names of all packages in the repository.
pub(super) fn check(path: &str, manifest: &str, ours: &[String]) -> Result<Vec<Violation>> {
    let table = DeTable::parse(manifest).map_err(|error| anyhow::anyhow!("{path}: {error}"))?;
    let Some(package) = package_name(table.get_ref()) else { return Ok(Vec::new()) };
    let test_crate = path.starts_with("tests/") || path.starts_with("fuzz/");
    let listed = ROWS.iter().find(|row| row.package == package);
    if listed.is_none() && !test_crate {
        let message = format!("{package} is a new crate: give it a row in {TABLE}, with what it may depend on");
        return Ok(vec![Violation::new(path, 1, message)]);
    }
    let allowed = listed.map_or(TEST, |row| row.ours);
    let mut violations = Vec::new();
    for Dependency { name, kind } in dependencies(table.get_ref()) {
        // A crate's own tests may use what tests are made of.
        let tested_by =
            kind == Kind::Dev && ["mesh-lab", "mesh-docs", "mesh-traffic", "mesh-frames"].contains(&name.as_str());
        if ours.contains(&name) && !allowed.contains(&name.as_str()) && !tested_by && name != package {
            let list = if allowed.is_empty() { "nothing of ours".to_owned() } else { allowed.join(", ") };
            let remedy = "move what is needed to a crate that both may use";
            violations.push(Violation::new(path, 1, format!("{package} -> {name}: it may depend on {list}; {remedy}")));
        }
        if let Some(others) = listed.and_then(|row| row.others)
            && kind != Kind::Dev
            && !ours.contains(&name)
            && !others.contains(&name.as_str())
        {
            let list = others.join(", ");
            let remedy = "pass the result in from a crate that does I/O";
            violations.push(Violation::new(
                path,
                1,
                format!("{package} is pure: of others' crates it knows {list}, not {name}; {remedy}"),
            ));
        }
        if let Some((_, crates)) = RESERVED.iter().find(|(reserved, _)| *reserved == name)
            && !crates.contains(&package.as_str())
            && package != "mesh-ebpf"
        {
            violations.push(Violation::new(
                path,
                1,
                format!("{name} belongs to {} alone, not {package}", crates.join(" and ")),
            ));
        }
    }
    Ok(violations)
}

/// Checks that the architecture's table has what each crate may depend on, a line each.
pub(super) fn check_document(path: &str, document: &str) -> Vec<Violation> {
    let missing = ROWS.iter().map(documented).filter(|line| !document.lines().any(|known| known == line));
    missing.map(|line| Violation::new(path, 1, format!("its table of arrows lacks the line {line:?}"))).collect()
}

fn documented(row: &Row) -> String {
    let ours: Vec<_> = row.ours.iter().map(|package| package.trim_start_matches("mesh-")).collect();
    let ours = if ours.is_empty() { "nothing of ours".to_owned() } else { ours.join(", ") };
    format!("| `{}` | {ours} |", row.package)
}

/// The package's name in a manifest that has one.
pub(super) fn name_in(path: &str, manifest: &str) -> Result<Option<String>> {
    let table =
        DeTable::parse(manifest).map_err(|error| anyhow::anyhow!("{error}")).with_context(|| path.to_owned())?;
    Ok(package_name(table.get_ref()))
}

fn package_name(manifest: &DeTable<'_>) -> Option<String> {
    let package = manifest.get("package")?.get_ref().as_table()?;
    Some(package.get("name")?.get_ref().as_str()?.to_owned())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Built,
    Dev,
}

struct Dependency {
    name: String,
    kind: Kind,
}

/// Every dependency, those of single platforms too, under its package's real name.
fn dependencies(manifest: &DeTable<'_>) -> Vec<Dependency> {
    let mut found = sections(manifest);
    if let Some(targets) = manifest.get("target").and_then(|value| value.get_ref().as_table()) {
        found.extend(targets.values().filter_map(|value| value.get_ref().as_table()).flat_map(sections));
    }
    found
}

fn sections(table: &DeTable<'_>) -> Vec<Dependency> {
    let sections =
        [("dependencies", Kind::Built), ("build-dependencies", Kind::Built), ("dev-dependencies", Kind::Dev)];
    let mut found = Vec::new();
    for (section, kind) in sections {
        let Some(entries) = table.get(section).and_then(|value| value.get_ref().as_table()) else { continue };
        for (key, value) in entries {
            let renamed = value.get_ref().as_table().and_then(|entry| entry.get("package"));
            let name = renamed.and_then(|value| value.get_ref().as_str()).unwrap_or(key.get_ref());
            found.push(Dependency { name: name.to_owned(), kind });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, manifest: &str) -> Vec<String> {
        let ours = ["mesh-abi", "mesh-core", "mesh-config", "mesh-node", "mesh-lab"].map(str::to_owned);
        check(path, manifest, &ours).unwrap().into_iter().map(|violation| violation.message).collect()
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_is_refused() {
        let cases = [
            ("mesh-core", "[dependencies]\nmesh-config.workspace = true", "mesh-core -> mesh-config"),
            ("mesh-config", "[dependencies]\nmesh-abi = { path = \"x\" }", "mesh-config -> mesh-abi"),
            ("mesh-ctl", "[build-dependencies]\nmesh-abi = \"1\"", "mesh-ctl -> mesh-abi"),
            ("mesh-ctl", "[target.'cfg(unix)'.dependencies]\nx = { package = \"mesh-node\" }", "mesh-ctl -> mesh-node"),
            ("mesh-node", "[dependencies]\nmesh-lab = \"1\"", "mesh-node -> mesh-lab"),
            ("mesh-core", "[dependencies]\ntokio = \"1\"", "not tokio"),
            ("mesh-config", "[dependencies]\naya = \"1\"", "aya belongs to"),
            ("mesh-new", "", "new crate"),
        ];
        for (package, rest, expected) in cases {
            let messages = messages("x/Cargo.toml", &format!("[package]\nname = \"{package}\"\n{rest}\n"));
            assert!(messages.len() == 1 && messages[0].contains(expected), "{package} {rest}: {messages:?}");
        }
    }

    #[test]
    fn a_document_has_to_have_every_arrow() {
        let all: Vec<_> = ROWS.iter().map(documented).collect();
        assert!(check_document("x", &all.join("\n")).is_empty());
        let missing = check_document("x", &all[1..].join("\n"));
        assert!(missing.len() == 1 && missing[0].message.contains("mesh-abi"), "{}", missing.len());
    }

    #[test]
    fn the_arrows_of_the_table_pass() {
        let cases = [
            ("mesh-node/Cargo.toml", "mesh-node", "[dependencies]\nmesh-core = \"1\"\nmesh-abi = \"1\"\naya = \"1\""),
            ("mesh-node/Cargo.toml", "mesh-node", "[dev-dependencies]\nmesh-lab = \"1\""),
            ("crates/mesh-core/Cargo.toml", "mesh-core", "[dev-dependencies]\nproptest = \"1\""),
            ("tests/e2e/Cargo.toml", "mesh-e2e", "[dependencies]\nmesh-lab = \"1\"\nmesh-core = \"1\""),
        ];
        for (path, package, rest) in cases {
            let messages = messages(path, &format!("[package]\nname = \"{package}\"\n{rest}\n"));
            assert!(messages.is_empty(), "{messages:?}");
        }
    }
}
