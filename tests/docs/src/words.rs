//! What the words after a block's language say. This is their one description; a test of mesh-ctl's holds pages to it.
//!
//! - `yaml`: manifests, applied where the page's commands run, in the order of the page; `file=NAME` is the file's name there.
//!   `yaml values`: values of the chart.
//! - `sh`: commands. One word says who runs them, or why nobody does:
//!   - `test=manifests`: mesh-ctl alone, where `cluster/` is a directory with the page's manifests.
//!   - `test=cluster`: on a real cluster with the mesh. `given=nothing`, at a page's first such block: the page makes all else.
//!     `given=shop`: where the first page's shop has joined. Without it, where the shop has a waypoint as well, and a customer.
//!     `given=roots`: once every node trusts the roots that are in the directory `ca`.
//!   - `test=installation`: on a real cluster with the shop's pods, one page after the other as [`INSTALLATION`] has them: what a
//!     page changes, the next one finds. `given=nothing`: the mesh is not installed; `given=mesh`: it is; `given=taint`: it was
//!     removed while a node had its taint.
//!   - `test=machine`: mesh-control alone, as on a machine without Kubernetes.
//!   - `covered=FILE`: nobody as they are written, since they take a machine of their own; this test does the same.
//!   - `untested=REASON`: nobody, and why: one of [`UNTESTED`].
//! - `given=day-later`: a day after the block before, when certificates have been renewed.
//! - `exit=N`: how the last command ends, where that is not with 0.
//! - `until=TEXT`: the last command has no end: it runs until it has printed that, and is interrupted then (Ctrl-C).
//! - `share=SERVER:LEAST-MOST`: of the answers that are counted, so many are this server's.
//! - `text` after an `sh test=manifests` is what its last command prints, `...` standing for any lines.

use crate::{Block, root};

/// Who runs commands, and the test that does it.
pub const RUNNERS: [(&str, &str); 4] = [
    ("manifests", "mesh-ctl/tests/docs/main.rs"),
    ("cluster", "tests/kube/tests/docs.rs"),
    ("installation", "tests/kube/tests/docs_installation.rs"),
    ("machine", "mesh-control/tests/docs.rs"),
];

/// Why commands are not run. `repository`: they are the project's own, which build and run the tests themselves. `node`: they are
/// for a node whose daemon is gone for good.
pub const UNTESTED: [&str; 2] = ["repository", "node"];

/// The pages that install, change and remove the mesh, in the order in which a person comes to them.
pub const INSTALLATION: [&str; 6] = [
    "docs/install.md",
    "README.md",
    "docs/observe/dashboard.md",
    "docs/operations/upgrade.md",
    "docs/operations/uninstall.md",
    "docs/operations/new-nodes.md",
];

/// Where a block may begin, by who runs it.
const GIVEN: [(&str, &[&str]); 3] = [
    ("cluster", &["nothing", "shop", "roots", "day-later"]),
    ("installation", &["nothing", "mesh", "taint"]),
    ("machine", &["day-later"]),
];

impl Block<'_> {
    /// What is wrong with the words of a block of commands.
    ///
    /// # Errors
    /// With a sentence for who wrote it.
    pub fn check_words(&self) -> Result<(), String> {
        for word in &self.info[1..] {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is no NAME=VALUE"))?;
            let known = match name {
                "test" => RUNNERS.iter().any(|(runner, _)| *runner == value),
                "covered" => root().join(value).is_file(),
                "untested" => UNTESTED.contains(&value),
                "given" => GIVEN.iter().any(|(runner, given)| self.is_run_by(runner) && given.contains(&value)),
                "exit" => value.parse::<i32>().is_ok(),
                "until" | "share" => !value.is_empty() && !self.is_run_by("manifests"),
                _ => false,
            };
            if !known {
                return Err(format!("nobody knows `{word}`: tests/docs/src/words.rs has the words"));
            }
        }
        match ["test", "covered", "untested"].iter().filter(|name| self.word(name).is_some()).count() {
            1 => Ok(()),
            _ => Err("commands say one of `test=WHO`, `covered=FILE` and `untested=REASON`: tests/docs/src/words.rs has the \
                      words"
                .to_owned()),
        }
    }

    /// Whether this runner runs it.
    #[must_use]
    pub fn is_run_by(&self, runner: &str) -> bool {
        self.word("test") == Some(runner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(info: &str) -> Result<(), String> {
        Block { info: info.split_whitespace().collect(), body: String::new() }.check_words()
    }

    #[test]
    fn commands_say_who_runs_them_or_why_nobody_does() {
        for good in [
            "sh test=cluster until=a=b",
            "sh test=manifests exit=1",
            "sh untested=repository",
            "sh covered=tests/kube/tests/docs.rs",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "sh",
            "sh test=nobody",
            "sh untested=later",
            "sh covered=tests/nowhere.rs",
            "sh test=cluster untested=repository",
            "sh test=cluster sudo",
            "sh test=cluster given=luck",
            "sh test=installation given=shop",
            "sh test=manifests until=then",
            "sh test=cluster exit=well",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
