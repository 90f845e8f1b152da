//! `mesh-ctl completion`: what a shell needs to complete commands.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::output::print_raw;
use crate::{Arguments, Outcome};

/// Prints a script that completes mesh-ctl's commands: `source <(mesh-ctl completion bash)`.
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell.
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(&self) -> anyhow::Result<Outcome> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "mesh-ctl", &mut script);
        print_raw(&String::from_utf8_lossy(&script))?;
        Ok(Outcome::Good)
    }
}
