//! Helm, which renders the chart and keeps its releases.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::Args;
use serde_json::Value;

use super::chart::{Chart, Values};
use crate::cluster::ClusterArguments;

/// The first of Helm's versions that takes all that is asked of it: `--skip-crds` of an upgrade is of 3.3, values' JSON schemas with
/// `$ref` of 3.5, `uninstall --ignore-not-found` of 3.13.
const OLDEST: (u32, u32) = (3, 13);
/// The chart's release unless it is said otherwise.
pub(crate) const RELEASE: &str = "mesh";

/// Which Helm, and which release.
#[derive(Debug, Clone, Args)]
pub(crate) struct HelmArguments {
    /// The helm program; the one in PATH without it.
    #[arg(long, value_name = "PATH", env = "HELM", default_value = "helm")]
    helm: OsString,
    /// The release's name.
    #[arg(long, value_name = "NAME", default_value = RELEASE)]
    release: String,
}

/// Helm on a cluster, for one release of the chart.
#[derive(Debug, Clone)]
pub(crate) struct Helm {
    program: OsString,
    pub(crate) release: String,
    /// What says which cluster, and which namespace.
    place: Vec<OsString>,
}

impl Helm {
    /// Looks whether it is there, and of a version that will do.
    pub(crate) fn find(arguments: &HelmArguments, cluster: &ClusterArguments) -> anyhow::Result<Self> {
        let HelmArguments { helm, release } = arguments;
        let program = helm.clone();
        let found = Self { program, release: release.clone(), place: cluster.for_helm() };
        let version = found.run(&["version", "--template", "{{.Version}}"])?;
        let old = || format!("helm {version} is older than {}.{}: {}", OLDEST.0, OLDEST.1, remedy());
        ensure!(is_new_enough(&version), old());
        Ok(found)
    }

    /// What the chart says with these values, without a cluster.
    pub(crate) fn template(&self, chart: &Chart, values: &Values) -> anyhow::Result<String> {
        let path = chart.path().display().to_string();
        let mut arguments = vec!["template".to_owned(), self.release.clone(), path];
        arguments.extend(values.arguments()?);
        self.run(&arguments)
    }

    /// The values of the release that is there; none where there is none.
    pub(crate) fn values_in_force(&self) -> anyhow::Result<Option<Value>> {
        match self.run(&["get", "values", &self.release, "--all", "--output", "json"]) {
            Ok(text) => Ok(Some(serde_json::from_str(&text).context("the values that helm tells")?)),
            Err(error) if error.to_string().contains("release: not found") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs it to its end, with nothing else going on meanwhile; what it prints.
    pub(crate) fn run<A: AsRef<str>>(&self, arguments: &[A]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.args(arguments.iter().map(AsRef::as_ref)).args(&self.place);
        // Who interrupts this program ends helm, too, by the terminal; it marks its release as failed then.
        let output = command.stdin(Stdio::null()).output().map_err(|error| self.not_started(&error))?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            return Ok(stdout.into_owned());
        }
        let words = arguments.first().map_or("", AsRef::as_ref);
        let said = stderr.trim().trim_start_matches("Error: ").to_owned();
        match advice(&said) {
            Some(advice) => bail!("helm {words}: {said}; {}", advice.replace("RELEASE", &self.release)),
            None => bail!("helm {words}: {said}"),
        }
    }

    fn not_started(&self, error: &std::io::Error) -> anyhow::Error {
        let program = self.program.to_string_lossy();
        match error.kind() {
            ErrorKind::NotFound => anyhow!("there is no {program}, which renders the chart: {}", remedy()),
            _ => anyhow!("{program} cannot be started: {error}; {}", remedy()),
        }
    }
}

/// How to come by it.
fn remedy() -> String {
    format!(
        "install Helm {}.{} or newer (https://helm.sh/docs/intro/install: a package, or one file for the PATH), or name it with --helm PATH",
        OLDEST.0, OLDEST.1
    )
}

/// What to do about what it says.
fn advice(said: &str) -> Option<&'static str> {
    if said.contains("another operation (install/upgrade/rollback) is in progress") {
        return Some(
            "if none runs, an earlier one was broken off: `helm rollback RELEASE`, or where it was the first `mesh-ctl uninstall`",
        );
    }
    if said.contains("invalid ownership metadata") {
        return Some("another release has it: name that with --release, or uninstall it first");
    }
    let late = said.contains("timed out waiting") || said.contains("context deadline exceeded");
    late.then_some(
        "`mesh-ctl bug-report` and `kubectl -n NAMESPACE get pods,events` say which pods are not ready, and why",
    )
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim().trim_start_matches('v').split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= OLDEST,
        // One that was built without a version: it is to show itself.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, good) in
            [("v3.9.4", false), ("v3.13.0", true), ("v3.22.1+g1", true), ("v4.0.0", true), ("dev", true)]
        {
            assert_eq!(is_new_enough(version), good, "{version}");
        }
    }
}
