//! Programs in Go that tests run beside the mesh, built from published sources and kept outside the repository.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{repo, step};

/// A program, as its go.mod has it and as tests look for it.
struct Program {
    name: &'static str,
    version: &'static str,
    /// The module in the repository that says which versions of what.
    module: &'static str,
    package: &'static str,
}

/// Where tests send their spans to (tests/e2e/src/jaeger.rs).
const JAEGER: Program = Program {
    name: "jaeger",
    version: "v1.76.0",
    module: "tests/jaeger",
    package: "github.com/jaegertracing/jaeger/cmd/all-in-one",
};
/// Who asks for Istio's types by Istio's own messages (tests/e2e/tests/istio_types.rs).
const SUBSCRIBER: Program = Program { name: "subscriber", version: "v1", module: "tests/istio", package: "." };

/// What holds dashboards against Grafana's schema (tests/e2e/tests/dashboards.rs).
const DASHBOARD_SCHEMA: Program =
    Program { name: "dashboard-schema", version: "v0.0.22", module: "tests/grafana", package: "." };

/// Builds those that are not there.
pub(crate) fn programs() -> Result<()> {
    [JAEGER, SUBSCRIBER, DASHBOARD_SCHEMA].iter().try_for_each(Program::build)
}

impl Program {
    fn build(&self) -> Result<()> {
        let program = repo::cache()?.join(self.name).join(self.version).join(self.name);
        // Of our own source anything may have changed; where nothing has, Go knows that at once.
        if program.exists() && self.package != "." {
            return Ok(());
        }
        if let Some(directory) = program.parent() {
            fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        }
        let draft = program.with_extension(format!("draft-{}", std::process::id()));
        let mut command = Command::new("nice");
        command.args(["-n", "10", "go", "build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o"]);
        command.arg(&draft).arg(self.package).current_dir(repo::root().join(self.module)).env("CGO_ENABLED", "0");
        step::run(&format!("{} {}", self.name, self.version), &mut command)?;
        fs::rename(&draft, &program).with_context(|| format!("moving {}", draft.display()))
    }
}
