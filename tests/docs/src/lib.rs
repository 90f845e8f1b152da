//! What tests need to hold docs/ to what is so: [`Page`]s with their blocks and links, a [`Shell`] for their commands (what the words
//! of a block say of them is in words.rs), and the pages of docs/reference that programs have of their own, flags and metrics. A test
//! of each program makes its page and [`hold`]s it to what is committed; `cargo xtask docs` has the same tests write it.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "it is part of tests alone")]

mod flags;
mod metrics;
mod page;
mod shell;
mod words;

use std::fs;

pub use self::flags::flags;
pub use self::metrics::{hold_metrics, hold_metrics_text};
pub use self::page::{Block, Page, arguments_of, root};
pub use self::shell::{Outcome, Running, Shell};
pub use self::words::{INSTALLATION, RUNNERS, UNTESTED};

/// Where the pages of programs are.
const FOLDER: &str = "docs/reference";
/// Set to `write`, pages are written in place of being compared.
const VARIABLE: &str = "MESH_REFERENCE";

/// Compares a page with the one that is committed, or writes it.
///
/// # Panics
/// When they differ.
pub fn hold(page: &str, text: &str) {
    let path = root().join(FOLDER).join(page);
    if std::env::var_os(VARIABLE).is_some_and(|value| value == "write") {
        fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    if let Some((number, (old, new))) = first_difference(&committed, text) {
        panic!("docs/reference/{page} is not as generated: run `cargo xtask docs`. Line {number}:\n- {old}\n+ {new}");
    }
}

fn first_difference<'a>(committed: &'a str, text: &'a str) -> Option<(usize, (&'a str, &'a str))> {
    let mut pairs =
        (1..).zip(committed.split('\n').map(Some).chain([None]).zip(text.split('\n').map(Some).chain([None])));
    let (number, (old, new)) = pairs.find(|(_, (old, new))| old != new)?;
    Some((number, (old.unwrap_or("(end)"), new.unwrap_or("(end)"))))
}

/// A cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn the_first_difference_is_found_also_at_an_end() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some((2, ("b", "c"))));
        assert_eq!(first_difference("a", "a\nb"), Some((2, ("(end)", "b"))));
        assert_eq!(first_difference("", "a"), Some((1, ("", "a"))));
    }
}
