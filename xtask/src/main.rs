//! The project's one command: `cargo xtask <command>`.

#![forbid(unsafe_code)]

mod build;
mod ebpf;
mod repo;
mod setup;
mod step;

use std::process::ExitCode;

use anyhow::{Result, bail};
use build::Profile;
use setup::Purpose;

const USAGE: &str = "\
cargo xtask <command>

  setup              install what is missing on this machine (Debian 12 and 13; elsewhere: says what to install)
  ebpf               build the eBPF programs: target/bpf/mesh-ebpf.o
  build [--release]  build the eBPF programs, all programs and test programs
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["setup"] => setup::ensure(&setup::ALL),
        ["ebpf"] => {
            setup::ensure(&[Purpose::Build])?;
            ebpf::build().map(drop)
        }
        ["build", rest @ ..] => {
            let profile = match rest {
                [] => Profile::Dev,
                ["--release"] => Profile::Release,
                other => bail!("build takes --release or nothing, not {}", other.join(" ")),
            };
            setup::ensure(&[Purpose::Build])?;
            build::build(profile)
        }
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("no command `{}`\n\n{USAGE}", other.join(" ")),
    }
}
