//! `cargo xtask setup`: what is missing, why it is wanted, and its installation.

mod debian;
mod needs;
mod rust_tools;

use anyhow::{Result, bail};

use needs::Need;
pub(crate) use needs::{ALL, DEBIAN_CARGO, DEBIAN_RUSTC, Purpose, debian_toolchain_present};
pub(crate) use rust_tools::cargo_bin;

/// Installs what `purposes` need and this machine lacks; does nothing, quickly, where nothing is missing.
pub(crate) fn ensure(purposes: &[Purpose]) -> Result<()> {
    let missing = needs::missing(purposes);
    if !missing.is_empty() {
        for need in &missing {
            eprintln!("missing {}: {}", need.name, need.why);
        }
        match debian::release() {
            Some(release) => debian::install(&release, &missing)?,
            None => elsewhere(&missing)?,
        }
    }
    rust_tools::ensure(purposes)
}

fn elsewhere(missing: &[Need]) -> Result<()> {
    let names: Vec<&str> = missing.iter().map(|need| need.name).collect();
    bail!(
        "this is not Debian 12 or 13, so nothing was installed. Install with this system's package manager: {}. \
         (Debian's names for them: {}.) Then run this again",
        names.join(", "),
        needs::packages(missing).join(" ")
    )
}
