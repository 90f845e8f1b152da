//! What is printed: tables for people, JSON and YAML for programs.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;

/// The form of a command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For programs.
    Yaml,
}

/// Writes text to standard output, whole.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.context("cannot write to standard output")
}

/// Writes a value in a form for programs.
pub(crate) fn print_value<T: Serialize>(value: &T, format: Format) -> anyhow::Result<()> {
    let mut text = match format {
        Format::Yaml => serde_saphyr::to_string(value)?,
        Format::Json | Format::Table => serde_json::to_string_pretty(value)?,
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    print(&text)
}

/// Rows under headings, in columns as wide as they need to be; the last one is not padded.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let headings = headings.map(str::to_owned);
    for row in std::iter::once(&headings).chain(rows) {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            // What a manifest says must not steer the terminal.
            let cell: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            if column + 1 == N {
                text.push_str(&cell);
            } else {
                text.push_str(&format!("{cell:width$}  "));
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// Whether the reader of our output went away.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == ErrorKind::BrokenPipe)
}

/// Says on standard error what went wrong; nobody may be left to hear it.
pub(crate) fn complain(error: &anyhow::Error) {
    let _ = writeln!(io::stderr(), "mesh-ctl: {error:#}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["ä".into(), "wide cell".into()], ["longer".into(), "x\x1b[31m".into()]];
        let expected = "A       B\nä       wide cell\nlonger  x [31m\n";
        assert_eq!(table(["A", "B"], &rows), expected);
    }
}
