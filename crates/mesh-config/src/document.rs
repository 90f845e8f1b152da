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
    body: Body,
}

/// What of a document is known before it is asked for its value.
#[derive(Debug)]
enum Body {
    /// In JSON, documents are told apart by reading them.
    Read(Result<Value, Broken>),
    Yaml,
}

impl Document<'_> {
    /// What it says.
    pub(crate) fn value(self, limits: &Limits) -> Result<Value, Broken> {
        match self.body {
            Body::Read(value) => value,
            Body::Yaml => serde_saphyr::from_str_with_options(self.text, yaml_options(self.text, limits))
                .map_err(|error| broken_yaml(&error, self.line)),
        }
    }
}

/// Why a document cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) message: String,
    /// Line and column in the file, counted from 1.
    pub(crate) place: Option<(usize, usize)>,
}

/// The documents of a file. Those that hold nothing but comments are left out.
pub(crate) fn documents(text: &str, format: Format) -> Box<dyn Iterator<Item = Document<'_>> + '_> {
    let text = without_mark(text);
    match format {
        Format::Yaml => Box::new(yaml(text)),
        Format::Json => Box::new(json(text)),
    }
}

/// A text without the mark that tells the order of octets.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn yaml(text: &str) -> impl Iterator<Item = Document<'_>> {
    let document = |(index, Chunk { line, text })| Document { index: index + 1, line, text, body: Body::Yaml };
    split(text).into_iter().enumerate().map(document)
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
        let line = first_line(text, start);
        let end = if done { text.len() } else { stream.byte_offset() };
        let body = Body::Read(value.map_err(|error| broken_json(&error)));
        Some(Document { index, line, text: &text[start..end], body })
    })
}

/// The line of the first word after a place, counted from 1.
pub(crate) fn first_line(text: &str, start: usize) -> usize {
    let skipped = text[start..].len() - text[start..].trim_start().len();
    1 + text[..start + skipped].matches('\n').count()
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
            let mut documents = documents("\u{feff}{\"a\": 1}", format);
            let value = documents.next().unwrap().value(&limits);
            assert_eq!(value, Ok(serde_json::json!({"a": 1})), "{format:?}");
        }
    }

    #[test]
    fn labels_stay_text_and_null_is_nothing() {
        let limits = Limits::default();
        let mut documents = documents("{no: no, y: y, off: off, none: ~, on: true}", Format::Yaml);
        let expected = serde_json::json!({"no": "no", "y": "y", "off": "off", "none": null, "on": true});
        assert_eq!(documents.next().unwrap().value(&limits), Ok(expected));
    }

    #[test]
    fn deep_nesting_is_refused_before_it_hurts() {
        let limits = Limits::default();
        for format in [Format::Yaml, Format::Json] {
            let text = "[".repeat(200_000);
            let value = documents(&text, format).next().unwrap().value(&limits);
            assert!(value.is_err(), "{format:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in any::<String>(), json in any::<bool>()) {
            let limits = Limits::default();
            let format = if json { Format::Json } else { Format::Yaml };
            for document in documents(&text, format) {
                prop_assert!(document.line >= 1);
                drop(document.value(&limits));
            }
        }

        #[test]
        fn yaml_like_text_does_not_either(text in "([-a:{}\\[\\]\"'|>&*#!%?,\\. \n\t]|---\n){0,60}") {
            let limits = Limits::default();
            for document in documents(&text, Format::Yaml) {
                let start = text.lines().nth(document.line - 1).unwrap();
                prop_assert!(document.text.starts_with(start), "{:?} at {}", document.text, document.line);
                drop(document.value(&limits));
            }
        }

        #[test]
        fn a_broken_document_never_takes_another_with_it(before in 0usize..5, after in 0usize..5) {
            let good = "---\na: 1\n";
            let text = format!("{}---\na: {{\n{}", good.repeat(before), good.repeat(after));
            let limits = Limits::default();
            let values: Vec<bool> = documents(&text, Format::Yaml).map(|d| d.value(&limits).is_ok()).collect();
            let expected: Vec<bool> = (0..=before + after).map(|index| index != before).collect();
            prop_assert_eq!(values, expected);
        }
    }
}
