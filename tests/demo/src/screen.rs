//! What the person sees: short lines, a tick for each step, colour and progress only on a terminal.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::time::Duration;

use crate::table::Table;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

/// Standard output, and what it can show.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    terminal: bool,
    colour: bool,
    unicode: bool,
}

impl Screen {
    /// Looks at standard output and the environment (`NO_COLOR`, `TERM`, the locale).
    pub fn new() -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let terminal = stdout().is_terminal() && variable("TERM") != "dumb";
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(variable).into_iter().find(|value| !value.is_empty());
        let locale = locale.unwrap_or_default().to_ascii_lowercase().replace('-', "");
        Self { terminal, colour: terminal && variable("NO_COLOR").is_empty(), unicode: locale.contains("utf8") }
    }

    /// The first line.
    pub fn title(&self, text: &str) {
        self.write(&self.paint(BOLD, text));
    }

    /// A step begins.
    pub fn step(&self, number: usize, title: &str) {
        self.write("");
        self.write(&self.paint(BOLD, &format!("{number}  {title}")));
    }

    /// A sentence of a step.
    pub fn say(&self, text: impl Display) {
        self.write(&format!("   {text}"));
    }

    /// A command that was run, and where.
    pub fn command(&self, place: &str, command: &str) {
        self.write(&format!("   {} {command}", self.paint(DIM, &format!("{place}$"))));
    }

    /// Something quoted as it was found.
    pub fn quote(&self, text: impl Display) {
        self.write(&format!("       {text}"));
    }

    /// Rows under their headings.
    pub fn table(&self, table: &Table) {
        let lines = table.lines();
        for (number, line) in lines.iter().enumerate() {
            let line = format!("     {line}");
            self.write(&if number == 0 { self.paint(DIM, &line) } else { line });
        }
    }

    /// What is being waited for: a line that the next one replaces. Nothing where standard output is no terminal.
    pub fn progress(&self, text: impl Display) {
        if self.terminal {
            let mut out = stdout().lock();
            let _ = write!(out, "\r\x1b[K   {}", self.paint(DIM, &format!("{text} ...")));
            let _ = out.flush();
        }
    }

    /// A step held.
    pub fn holds(&self, evidence: &str, took: Duration) {
        let text = format!("{} {evidence}", self.tick());
        let room = 84_usize.saturating_sub(text.chars().count());
        let time = self.paint(DIM, &format!("{:>room$}", format!("  {}", seconds(took))));
        self.write(&format!(" {}{time}", self.paint(GREEN, &text)));
    }

    /// A step did not hold.
    pub fn fails(&self, number: usize, reason: &str) {
        let cross = if self.unicode { "\u{2717}" } else { "FAILED" };
        self.write(&format!(" {}", self.paint(RED, &format!("{cross} step {number} does not hold"))));
        for line in reason.lines() {
            self.write(&format!("   {line}"));
        }
    }

    /// A line on its own.
    pub fn write(&self, line: &str) {
        let erase = if self.terminal { "\r\x1b[K" } else { "" };
        // Nobody listens to a closed standard output; the exit code still says how it went.
        let _ = writeln!(stdout().lock(), "{erase}{line}");
    }

    /// The mark of what held.
    pub fn tick(&self) -> &'static str {
        if self.unicode { "\u{2713}" } else { "ok" }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A time as people read it.
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f32())
}

/// A count of bytes as people read it.
pub fn bytes(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 packet`, `2 packets`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_nouns_agree() {
        assert_eq!(bytes(0), "0");
        assert_eq!(bytes(999), "999");
        assert_eq!(bytes(1_234_567), "1,234,567");
        assert_eq!(count(1, "packet"), "1 packet");
        assert_eq!(count(0, "packet"), "0 packets");
    }
}
