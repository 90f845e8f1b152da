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

/// Whether a character steers a terminal, or shows what is around it in another order than it is in: peers choose paths, and
/// manifests names.
fn steers(c: char) -> bool {
    let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || reorders || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The text with nothing in it that steers a terminal; its lines stay.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) && !matches!(c, '\n' | '\t') { ' ' } else { c }).collect()
}

/// The same as one line.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// JSON that says the same and does not steer a terminal either: between its texts there is nothing of that kind but ends of lines.
fn printable_json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push(c),
            c if steers(c) => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

/// Writes text for people to standard output, whole.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    print_raw(&printable(text))
}

/// Writes text to standard output as it is.
pub(crate) fn print_raw(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderLeft.into()),
        written => written.context("cannot write to standard output"),
    }
}

/// Writes a value in a form for programs.
pub(crate) fn print_value<T: Serialize>(value: &T, format: Format) -> anyhow::Result<()> {
    let mut text = match format {
        Format::Yaml => serde_saphyr::to_string(value)?,
        Format::Json | Format::Table => printable_json(&serde_json::to_string_pretty(value)?),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    print_raw(&text)
}

/// Writes a value in a form for programs, as one of many: a line of JSON, or a YAML document.
pub(crate) fn print_line<T: Serialize>(value: &T, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Yaml => print_raw(&format!("---\n{}", serde_saphyr::to_string(value)?)),
        Format::Json | Format::Table => print_raw(&format!("{}\n", printable_json(&serde_json::to_string(value)?))),
    }
}

/// Rows under headings, in columns as wide as they need to be; the last one is not padded. Without headings, no line of them.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = headings.iter().map(|&heading| heading.to_owned()).collect();
    let lines = || (!headings.is_empty()).then_some(&headings).into_iter().chain(rows);
    let mut widths = vec![0; lines().map(Vec::len).max().unwrap_or(0)];
    for row in lines() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in lines() {
        let start = text.len();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let cell = one_line(cell);
            if column + 1 == row.len() {
                text.push_str(&cell);
            } else {
                text.push_str(&format!("{cell:width$}  "));
            }
        }
        text.truncate(start.max(text.trim_end().len()));
        text.push('\n');
    }
    text
}

/// A moment, given in milliseconds since 1970, as its time of day (UTC).
pub(crate) fn time_of_day(milliseconds: u64) -> String {
    let (seconds, rest) = (milliseconds / 1_000 % 86_400, milliseconds % 1_000);
    format!("{:02}:{:02}:{:02}.{rest:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// A time in seconds as people read it: `59s`, `4m5s`, `3h12m`, `2d7h`.
pub(crate) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// Says on standard error what is worth knowing beside the output.
pub(crate) fn note(text: &str) {
    // Nobody may be left to hear it.
    let _ = writeln!(io::stderr(), "{}", printable(text));
}

/// The reader of standard output has seen enough. An error of its own: a daemon's socket has broken pipes as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReaderLeft;

impl std::fmt::Display for ReaderLeft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the reader of standard output has left")
    }
}

impl std::error::Error for ReaderLeft {}

/// Whether the reader of our output went away.
pub(crate) fn is_reader_left(error: &anyhow::Error) -> bool {
    error.is::<ReaderLeft>()
}

/// Says on standard error what went wrong; nobody may be left to hear it.
pub(crate) fn complain(error: &anyhow::Error) {
    let _ = writeln!(io::stderr(), "mesh-ctl: {}", printable(&format!("{error:#}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["ä".into(), "wide cell".into()], vec!["longer".into(), "x\x1b[31m".into()]];
        assert_eq!(table(&["A", "B"], &rows), "A       B\nä       wide cell\nlonger  x [31m\n");
        assert_eq!(table(&[], &rows), "ä       wide cell\nlonger  x [31m\n");
        assert_eq!(table(&["A"], &[]), "A\n");
    }

    #[test]
    fn nothing_that_peers_choose_steers_a_terminal() {
        // An escape sequence, the same by one character of C1, a title, an end of line, another order, and a line by Unicode alone.
        let hostile = "a\x1b[2J\u{9b}31m\x1b]0;x\x07\r\n\u{202e}b\u{2028}\u{7f}é";
        assert_eq!(printable(hostile), "a [2J 31m ]0;x  \n b  é");
        assert_eq!(one_line(hostile).lines().count(), 1);
        assert_eq!(table(&[], &[vec![hostile.into(), hostile.into()]]).lines().count(), 1);
        for text in [serde_json::to_string(hostile), serde_json::to_string_pretty(&[hostile])] {
            let text = text.expect("JSON");
            let safe = printable_json(&text);
            assert!(!safe.chars().any(|c| steers(c) && c != '\n'), "{safe:?}");
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
            assert_eq!(value(&safe), value(&text));
        }
        let yaml = serde_saphyr::to_string(&hostile).expect("YAML");
        assert!(!yaml.chars().any(|c| c.is_control() && c != '\n'), "{yaml:?}");
    }

    #[test]
    fn times_have_two_units_at_most() {
        let cases = [(0, "0s"), (59, "59s"), (60, "1m0s"), (3_599, "59m59s"), (3_660, "1h1m"), (90_000, "1d1h")];
        for (seconds, text) in cases {
            assert_eq!(age(seconds), text);
        }
    }
}
