//! The page of findings, from the table in mesh-config.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

const TABLE: &str = "crates/mesh-config/src/code.rs";

const HEAD: &str = "\
<!-- Made by `cargo xtask docs` from crates/mesh-config/src/code.rs. -->

# Findings

What the mesh says of a manifest that is wrong, or that asks for something that is not done. `mesh-ctl analyze` lists them for a
directory of manifests, `mesh-ctl status` counts those of what is in force. Codes are stable: none is ever used for something else.

- **error**: something that the manifest asks for is not in force.
- **warning**: it is in force, but perhaps not what was meant.
- **info**: worth knowing, nothing to do.

[How to read a finding](../operations/troubleshooting.md#how-to-read-a-finding)
";

/// One row of the table, or a headline in it.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Headline(&'a str),
    Code { id: &'a str, severity: &'a str, title: &'a str, remedy: &'a str },
}

pub(super) fn page() -> Result<String> {
    let source = super::read(TABLE)?;
    render(&source).with_context(|| format!("the table of findings in {TABLE}"))
}

fn render(source: &str) -> Result<String> {
    let mut page = HEAD.to_owned();
    for line in lines(source)? {
        match line {
            Line::Headline(text) => {
                write!(page, "\n## {text}\n\n| code | severity | meaning | what to do |\n|---|---|---|---|\n")?;
            }
            Line::Code { id, severity, title, remedy } => {
                let severity = severity.to_ascii_lowercase();
                writeln!(page, "| <a id=\"{id}\"></a>{id} | {severity} | {title} | {remedy} |")?;
            }
        }
    }
    Ok(page)
}

/// `codes! { // Headline. Name = "ID" Severity "title" "remedy" ... }`
fn lines(source: &str) -> Result<Vec<Line<'_>>> {
    let start = source.find("\ncodes! {").context("no `codes! {` at the beginning of a line")?;
    let table = &source[start..];
    let table = &table[..table.find("\n}\n").context("`codes! {` has no end")?];
    let mut lines = Vec::new();
    let mut rest = table.split_once('{').context("no `{`")?.1;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            break;
        }
        if let Some(comment) = rest.strip_prefix("//") {
            let (text, after) = comment.split_once('\n').context("a comment without an end")?;
            lines.push(Line::Headline(text.trim().trim_end_matches('.')));
            rest = after;
            continue;
        }
        let (id, after) = literal(rest)?;
        let severity = after.split_whitespace().next().context("no severity")?;
        let (title, after) = literal(after)?;
        let (remedy, after) = literal(after)?;
        lines.push(Line::Code { id, severity, title, remedy });
        rest = after;
    }
    ensure!(lines.iter().any(|line| matches!(line, Line::Code { .. })), "no codes");
    Ok(lines)
}

/// The next string, and what comes after it. The table's strings have no escapes.
fn literal(text: &str) -> Result<(&str, &str)> {
    let (_, inner) = text.split_once('"').context("a string is expected")?;
    let (literal, after) = inner.split_once('"').context("a string has no end")?;
    ensure!(!literal.contains(['\\', '|', '\n']), "{literal:?}: no escapes and no | here");
    Ok((literal, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "macro_rules! codes { }\n\ncodes! {\n    // Pods.\n    A = \"MESH0001\" Error \"it is broken\"\n        \"Mend it.\"\n}\n";

    #[test]
    fn the_table_is_read_whole() {
        let code = Line::Code { id: "MESH0001", severity: "Error", title: "it is broken", remedy: "Mend it." };
        assert_eq!(lines(SOURCE).unwrap(), [Line::Headline("Pods"), code]);
    }

    #[test]
    fn what_cannot_stand_in_a_table_is_an_error() {
        for (from, to) in [("Mend it.", "a|b"), ("Error", "\\\""), ("codes! {\n", "coding! {\n")] {
            assert!(lines(&SOURCE.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn every_code_of_the_source_is_on_the_page() {
        let source = super::super::read(TABLE).unwrap();
        let page = render(&source).unwrap();
        assert_eq!(page.matches("<a id=").count(), source.matches("= \"MESH").count());
    }
}
