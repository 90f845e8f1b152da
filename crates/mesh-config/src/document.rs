//! The text of a file to documents. One broken document does not take the file's others.

use serde_json::Value;

use crate::limits::Limits;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Yaml,
    Json,
}

/// One document of a file.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    /// Its place in the file, counted from 1.
    pub(crate) index: usize,
    /// Its first line in the file, counted from 1.
    pub(crate) line: usize,
    /// Its text, as far as it can be told apart.
    pub(crate) text: &'a str,
    pub(crate) value: Result<Value, Broken>,
}

/// Why a document cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) message: String,
    /// Line and column in the file, counted from 1.
    pub(crate) place: Option<(usize, usize)>,
}

/// The documents of a file. Those that hold nothing but comments are left out.
pub(crate) fn documents<'a>(
    text: &'a str,
    format: Format,
    limits: &'a Limits,
) -> Box<dyn Iterator<Item = Document<'a>> + 'a> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Yaml => Box::new(yaml(text, limits)),
        Format::Json => Box::new(json(text)),
    }
}

fn yaml<'a>(text: &'a str, limits: &'a Limits) -> impl Iterator<Item = Document<'a>> {
    split(text).into_iter().enumerate().map(|(index, chunk)| {
        let value = serde_saphyr::from_str_with_options(chunk.text, yaml_options(chunk.text, limits))
            .map_err(|error| broken_yaml(&error, chunk.line));
        Document { index: index + 1, line: chunk.line, text: chunk.text, value }
    })
}

/// YAML 1.2 booleans, so that a label `no` is text; duplicate keys and alias bombs are errors.
fn yaml_options(text: &str, limits: &Limits) -> serde_saphyr::Options {
    serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: limits.alias_events,
            max_replay_stack_depth: 16,
        },
        budget: serde_saphyr::budget! {
            max_events: limits.nodes.saturating_mul(2),
            max_nodes: limits.nodes,
            max_depth: 64,
            max_documents: 1,
            max_total_scalar_bytes: text.len().saturating_mul(2).saturating_add(1 << 20),
        },
    }
}

fn broken_yaml(error: &serde_saphyr::Error, first_line: usize) -> Broken {
    let text = error.to_string();
    let end = [" at line ", ", set DuplicateKeyPolicy"].iter().filter_map(|tail| text.find(tail)).min();
    let message = match end {
        Some(end) => text[..end].to_owned(),
        None => text,
    };
    let place = error.location().and_then(|location| {
        let line = usize::try_from(location.line()).ok()?;
        let column = usize::try_from(location.column()).ok()?;
        (line > 0).then(|| (first_line + line - 1, column))
    });
    Broken { message: message.trim_end_matches('.').to_owned(), place }
}

struct Chunk<'a> {
    line: usize,
    text: &'a str,
}

/// Splits at document markers. A line that starts with one is nothing else, not even inside a quoted or block
/// scalar (YAML 1.2.2, section 9.1.2, c-forbidden).
fn split(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut offset = 0;
    let mut has_content = false;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.get(..3).filter(|head| matches!(*head, "---" | "..."));
        let rest = marker.and_then(|_| line.get(3..));
        let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if let Some(rest) = rest {
            if has_content {
                chunks.push(Chunk { line: start_line, text: &text[start..offset] });
            }
            let ends = marker == Some("...");
            start = if ends { offset + line.len() } else { offset };
            start_line = if ends { number + 2 } else { number + 1 };
            has_content = !ends && is_content(rest);
        } else {
            has_content |= is_content(line) && !line.starts_with('%');
        }
        offset += line.len();
    }
    if has_content {
        chunks.push(Chunk { line: start_line, text: &text[start..] });
    }
    chunks
}

fn is_content(text: &str) -> bool {
    let text = text.trim_start();
    !text.is_empty() && !text.starts_with('#')
}

/// JSON texts one after the other. After a broken one nothing can be told apart any more.
fn json(text: &str) -> impl Iterator<Item = Document<'_>> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut done = false;
    let mut index = 0;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let start = stream.byte_offset();
        let value = stream.next()?;
        done = value.is_err();
        index += 1;
        let skipped = text[start..].len() - text[start..].trim_start().len();
        let line = 1 + text[..start + skipped].matches('\n').count();
        let end = if done { text.len() } else { stream.byte_offset() };
        Some(Document { index, line, text: &text[start..end], value: value.map_err(|error| broken_json(&error)) })
    })
}

fn broken_json(error: &serde_json::Error) -> Broken {
    let text = error.to_string();
    let end = text.find(" at line ").unwrap_or(text.len());
    Broken { message: text[..end].to_owned(), place: (error.line() > 0).then(|| (error.line(), error.column())) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(text: &str) -> Vec<(usize, &str)> {
        split(text).into_iter().map(|chunk| (chunk.line, chunk.text)).collect()
    }

    #[test]
    fn documents_are_split_at_markers_and_nothing_else() {
        let cases: [(&str, &[(usize, &str)]); 9] = [
            ("", &[]),
            ("# only\n---\n\n--- # words\n", &[]),
            ("a: 1", &[(1, "a: 1")]),
            ("a: 1\n---\nb: 1\n", &[(1, "a: 1\n"), (2, "---\nb: 1\n")]),
            ("%YAML 1.2\n---\na: 1\n", &[(2, "---\na: 1\n")]),
            ("--- {a: 1}\n---\n", &[(1, "--- {a: 1}\n")]),
            ("a: 1\n...\n\nb: 1\n", &[(1, "a: 1\n"), (3, "\nb: 1\n")]),
            ("a: |\n  ---\n  ----\n----: 1\n", &[(1, "a: |\n  ---\n  ----\n----: 1\n")]),
            ("a: 1\r\n---\r\nb: 1\r\n", &[(1, "a: 1\r\n"), (2, "---\r\nb: 1\r\n")]),
        ];
        for (text, expected) in cases {
            assert_eq!(lines(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_content() {
        let limits = Limits::default();
        for format in [Format::Yaml, Format::Json] {
            let mut documents = documents("\u{feff}{\"a\": 1}", format, &limits);
            let value = documents.next().unwrap().value;
            assert_eq!(value, Ok(serde_json::json!({"a": 1})), "{format:?}");
        }
    }

    #[test]
    fn labels_stay_text_and_null_is_nothing() {
        let limits = Limits::default();
        let mut documents = documents("{no: no, y: y, off: off, none: ~, on: true}", Format::Yaml, &limits);
        let expected = serde_json::json!({"no": "no", "y": "y", "off": "off", "none": null, "on": true});
        assert_eq!(documents.next().unwrap().value, Ok(expected));
    }

    #[test]
    fn deep_nesting_is_refused_before_it_hurts() {
        let limits = Limits::default();
        for format in [Format::Yaml, Format::Json] {
            let text = "[".repeat(200_000);
            let value = documents(&text, format, &limits).next().unwrap().value;
            assert!(value.is_err(), "{format:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in any::<String>(), json in any::<bool>()) {
            let limits = Limits::default();
            let format = if json { Format::Json } else { Format::Yaml };
            for document in documents(&text, format, &limits) {
                prop_assert!(document.line >= 1);
            }
        }

        #[test]
        fn yaml_like_text_does_not_either(text in "([-a:{}\\[\\]\"'|>&*#!%?,\\. \n\t]|---\n){0,60}") {
            let limits = Limits::default();
            for document in documents(&text, Format::Yaml, &limits) {
                let start = text.lines().nth(document.line - 1).unwrap();
                prop_assert!(document.text.starts_with(start), "{:?} at {}", document.text, document.line);
            }
        }

        #[test]
        fn a_broken_document_never_takes_another_with_it(before in 0usize..5, after in 0usize..5) {
            let good = "---\na: 1\n";
            let text = format!("{}---\na: {{\n{}", good.repeat(before), good.repeat(after));
            let limits = Limits::default();
            let values: Vec<bool> = documents(&text, Format::Yaml, &limits).map(|d| d.value.is_ok()).collect();
            let expected: Vec<bool> = (0..=before + after).map(|index| index != before).collect();
            prop_assert_eq!(values, expected);
        }
    }
}
