//! The sample cluster as a directory of manifests, and what this program says of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mesh_docs::{arguments_of, root};
use serde_json::Value;

/// What a cluster makes of docs/examples.
const CLUSTER: &str = include_str!("cluster.yaml");
/// How long a command may take, in seconds.
const LONGEST: &str = "5";
/// The example that pages build on.
const WAYPOINT: &str = "docs/examples/waypoint.yaml";

/// A directory that has `cluster/`.
pub struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("cluster")).unwrap();
        let world = Self { dir };
        world.apply(CLUSTER, None);
        world.apply(&fs::read_to_string(root().join(WAYPOINT)).unwrap(), None);
        world
    }

    /// As `kubectl apply`: an object of the same kind and name is replaced.
    pub fn apply(&self, manifests: &str, file: Option<&str>) {
        for document in manifests.split("\n---\n") {
            let object: Value = serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}:\n{document}"));
            let name = |field: &str| object["metadata"][field].as_str().unwrap_or("default").to_owned();
            let own = format!("{}.{}.{}.yaml", object["kind"].as_str().unwrap(), name("namespace"), name("name"));
            fs::write(self.cluster().join(file.unwrap_or(&own)), document).unwrap();
        }
    }

    /// The findings, as a person reads them, and how bad the worst is.
    pub fn analyze(&self) -> (String, String) {
        let output = mesh_ctl(&["analyze", "cluster", "-o", "json"], self.dir.path());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let severities =
            report["findings"].as_array().unwrap().iter().map(|finding| finding["severity"].as_str().unwrap());
        let worst = severities.min_by_key(|severity| ["error", "warning", "info"].iter().position(|s| s == severity));
        (serde_json::to_string_pretty(&report["findings"]).unwrap(), worst.unwrap_or("none").to_owned())
    }

    /// Runs this program's commands; what the last one printed.
    pub fn run(&self, commands: &[Vec<String>], exit_code: i32) -> String {
        let mut printed = String::new();
        for (index, command) in commands.iter().enumerate() {
            let arguments = arguments_of("mesh-ctl", command).unwrap_or_else(|| panic!("not mesh-ctl: {command:?}"));
            let output = mesh_ctl(arguments, self.dir.path());
            let expected = if index + 1 == commands.len() { exit_code } else { 0 };
            assert_eq!(output.status.code(), Some(expected), "{command:?}: {output:?}");
            printed = String::from_utf8(output.stdout).unwrap();
        }
        printed
    }

    fn cluster(&self) -> PathBuf {
        self.dir.path().join("cluster")
    }
}

/// Where there is no daemon and no cluster, as a person's own must not be told what pages tell; and for as long as it takes to
/// see what a command is that lasts.
fn mesh_ctl<S: AsRef<std::ffi::OsStr>>(arguments: &[S], dir: &Path) -> Output {
    let mut command = Command::new("timeout");
    command
        .args([LONGEST, env!("CARGO_BIN_EXE_mesh-ctl")])
        .args(arguments)
        .current_dir(dir)
        .env("MESH_ADMIN_SOCKET", "/nonexistent/socket")
        .env("KUBECONFIG", "/nonexistent/kubeconfig")
        .output()
        .unwrap()
}

/// What is wrong with a command's form, whatever becomes of it here.
pub fn usage_error(arguments: &[String]) -> Option<String> {
    // Pages have addresses and names that a shell fills in.
    let arguments: Vec<String> = arguments.iter().map(|word| word.replace('$', "x")).collect();
    let dir = tempfile::tempdir().unwrap();
    let output = mesh_ctl(&arguments, dir.path());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.contains("Usage:").then_some(said)
}

/// Each line of `expected` is among what was printed, in order; `...` stands for any number of lines, and others may not be between.
pub fn assert_printed(printed: &str, expected: &str, place: &str) {
    let mut lines = printed.lines().map(str::trim_end).peekable();
    let mut skipping = false;
    for wanted in expected.lines().map(str::trim_end) {
        if wanted == "..." {
            skipping = true;
            continue;
        }
        let found = if skipping { lines.find(|line| *line == wanted) } else { lines.next() };
        assert_eq!(found, Some(wanted), "{place} prints:\n{printed}");
        skipping = false;
    }
    assert!(skipping || lines.next().is_none(), "{place} prints more:\n{printed}");
}

/// The paths of all that is set.
pub fn paths(values: &Value) -> Vec<String> {
    let Some(map) = values.as_object() else { return Vec::new() };
    let inner = |(key, value): (&String, &Value)| {
        let below = paths(value).into_iter().map(|path| format!("{key}.{path}")).collect::<Vec<_>>();
        if below.is_empty() { vec![key.clone()] } else { below }
    };
    map.iter().flat_map(inner).collect()
}
