//! Names of flags and metrics that the programs' own pages lack. The pages are held whole by tests of the programs; this says at
//! once, and without a build, when one was forgotten.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::repo;

/// Where arguments are, and the pages that they are on.
const SOURCES: [(&str, &[&str]); 7] = [
    ("crates/mesh-metrics/src/lib.rs", &["mesh-node"]),
    ("mesh-node/src/", &["mesh-node"]),
    ("mesh-waypoint/src/", &["mesh-waypoint"]),
    ("mesh-control/src/", &["mesh-control"]),
    ("mesh-ctl/src/", &["mesh-ctl"]),
    ("crates/mesh-ca/src/args.rs", &["mesh-node", "mesh-waypoint"]),
    ("crates/mesh-otlp/src/args.rs", &["mesh-node", "mesh-waypoint"]),
];

/// What no page has, each with the program whose page it is missing from.
pub(super) fn missing() -> Result<Vec<String>> {
    let mut missing = BTreeSet::new();
    for path in repo::files(".rs")? {
        let path = path.to_string_lossy().into_owned();
        let Some((_, programs)) = SOURCES.iter().find(|(folder, _)| path.starts_with(folder)) else { continue };
        let source = super::read(&path)?;
        for program in *programs {
            let page = super::read(&format!("{}/{program}.md", super::FOLDER)).unwrap_or_default();
            let flags = flags(&source);
            missing.extend(flags.iter().filter(|flag| !has(&page, flag)).map(|flag| format!("{program}: {flag}")));
        }
        if path.contains("/telemetry/") || path.ends_with("mesh-metrics/src/lib.rs") || path.ends_with("/metrics.rs") {
            let program = programs[0];
            let page = super::read(&format!("{}/metrics-{program}.md", super::FOLDER)).unwrap_or_default();
            let metrics = metrics(&source);
            let absent = metrics.iter().filter(|name| !page.contains(&format!("`{name}`")));
            missing.extend(absent.map(|name| format!("{program}: {name}")));
        }
    }
    Ok(missing.into_iter().collect())
}

/// Whether a page has a flag in the first cell of a row.
fn has(page: &str, flag: &str) -> bool {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    cells.flat_map(|cell| cell.split([' ', ','])).any(|word| word == flag)
}

/// `--NAME` of each field or variant's argument under `#[arg(long ...)]`.
fn flags(source: &str) -> Vec<String> {
    let mut flags = Vec::new();
    for rest in source.split("#[arg(").skip(1) {
        let Some((options, after)) = rest.split_once(")]") else { continue };
        let mut words = options.split([',', '(']).map(str::trim);
        let Some(long) = words.find(|word| *word == "long" || word.starts_with("long =")) else { continue };
        let name = match long.split_once('"') {
            Some((_, named)) => named.trim_end_matches('"').to_owned(),
            None => field(after).replace('_', "-"),
        };
        flags.push(format!("--{name}"));
    }
    flags
}

/// The name of the field that comes next.
fn field(text: &str) -> &str {
    let declaration = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with(['#', '/']));
    let name = declaration.and_then(|line| line.split(':').next()).unwrap_or_default();
    name.rsplit(' ').next().unwrap_or_default().trim_start_matches('_')
}

/// Strings that are names of metrics.
fn metrics(source: &str) -> Vec<&str> {
    let production = source.split("#[cfg(test)]").next().unwrap_or_default();
    let strings = production.split('"').skip(1).step_by(2);
    let is_name = |text: &&str| {
        let ours = text.starts_with("mesh_") || text.starts_with("istio_");
        ours && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    strings.filter(is_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_the_names_of_their_fields_unless_they_say_another() {
        let source = "#[arg(long, value_name = \"DIR\", default_value = \"x\")]\n    pub(crate) bpf_dir: PathBuf,\n\
                      /// x\n#[arg(short = 'H', long = \"header\")]\nheaders: Vec<String>,\n#[arg(short)]\nno: bool,\n";
        assert_eq!(flags(source), ["--bpf-dir", "--header"]);
        let page = "| `--bpf-dir DIR` | x |\n| `-H, --header FIELD` | y |\nprose of --absent\n";
        assert!(has(page, "--bpf-dir") && has(page, "--header") && !has(page, "--absent") && !has(page, "--bpf"));
    }

    #[test]
    fn metrics_are_strings_that_are_names() {
        let source =
            "new(\"mesh_a_total\", \"What mesh_b is\")?; x(\"istio_c\"); y(\"Mesh\");\n#[cfg(test)]\nz(\"mesh_test\")";
        assert_eq!(metrics(source), ["mesh_a_total", "istio_c"]);
    }
}
