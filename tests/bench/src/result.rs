//! The last result and the one before, as JSON.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::statistics::Spread;
use crate::subjects::Subject;

const LATEST: &str = "latest.json";
const PREVIOUS: &str = "previous.json";

/// One metric of one subject, over all repeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// `<case>/<metric>`
    pub(crate) case: String,
    pub(crate) subject: Subject,
    pub(crate) unit: String,
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Median over repeats of the ratio to raw in the same repeat; null where raw has no such metric.
    pub(crate) ratio_to_raw: Option<f64>,
}

impl Entry {
    pub(crate) fn new(case: &str, subject: Subject, unit: &str, spread: Spread, ratio_to_raw: Option<f64>) -> Self {
        let Spread { median, low, high } = spread;
        Self { case: case.to_owned(), subject, unit: unit.to_owned(), median, low, high, ratio_to_raw }
    }

    pub(crate) fn spread(&self) -> Spread {
        Spread { median: self.median, low: self.low, high: self.high }
    }
}

/// Keeps `entries` as the latest result in `out`, and the latest until now as the previous one, which is returned.
///
/// # Errors
/// The file system's. A latest result that cannot be read is no error: there is nothing to compare with then.
pub(crate) fn keep(out: &Path, entries: &[Entry]) -> Result<Option<Vec<Entry>>> {
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let (latest, previous) = (out.join(LATEST), out.join(PREVIOUS));
    let before = match fs::read_to_string(&latest) {
        Ok(text) => {
            fs::rename(&latest, &previous).with_context(|| format!("moving {}", latest.display()))?;
            serde_json::from_str(&text).ok()
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("reading {}", latest.display())),
    };
    let text = serde_json::to_string_pretty(entries).context("writing the result as JSON")?;
    let draft = out.join("latest.json.draft");
    fs::write(&draft, text + "\n").with_context(|| format!("writing {}", draft.display()))?;
    fs::rename(&draft, &latest).with_context(|| format!("moving {}", draft.display()))?;
    Ok(before)
}

/// A metric that differs from the result before by more than the repeats of either differ among themselves.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) case: String,
    pub(crate) subject: Subject,
    pub(crate) unit: String,
    pub(crate) before: f64,
    pub(crate) now: f64,
    /// The ratios to raw, where both have one: what the machine itself did drops out of them.
    pub(crate) ratios: Option<(f64, f64)>,
}

/// What changed since the result before; metrics that only one of them has are left out.
pub(crate) fn changes(before: &[Entry], now: &[Entry]) -> Vec<Change> {
    let partner = |entry: &Entry| {
        before.iter().find(|it| it.case == entry.case && it.subject == entry.subject && it.unit == entry.unit)
    };
    let apart = now
        .iter()
        .filter_map(|entry| Some((partner(entry)?, entry)))
        .filter(|(old, new)| old.spread().is_apart_from(&new.spread()));
    apart
        .map(|(old, new)| Change {
            case: new.case.clone(),
            subject: new.subject,
            unit: new.unit.clone(),
            before: old.median,
            now: new.median,
            ratios: old.ratio_to_raw.zip(new.ratio_to_raw),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(case: &str, low: f64, high: f64) -> Entry {
        let spread = Spread { median: f64::midpoint(low, high), low, high };
        Entry::new(case, Subject::Mesh, "us", spread, Some(2.0))
    }

    #[test]
    fn an_entry_is_written_with_the_agreed_names() {
        let text = serde_json::to_value([entry("http-1/p50", 1.0, 3.0)]).expect("JSON");
        let expected = serde_json::json!([
            {"case": "http-1/p50", "subject": "mesh", "unit": "us", "median": 2.0, "low": 1.0, "high": 3.0, "ratio_to_raw": 2.0}
        ]);
        assert_eq!(text, expected);
    }

    #[test]
    fn the_latest_result_becomes_the_previous_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let (first, second) = ([entry("a", 1.0, 2.0)], [entry("a", 5.0, 6.0)]);
        assert_eq!(keep(dir.path(), &first).expect("kept"), None);
        assert_eq!(keep(dir.path(), &second).expect("kept"), Some(first.to_vec()));
        let read = |name: &str| -> Vec<Entry> {
            serde_json::from_str(&fs::read_to_string(dir.path().join(name)).expect("a file")).expect("JSON")
        };
        assert_eq!((read(PREVIOUS), read(LATEST)), (first.to_vec(), second.to_vec()));
    }

    #[test]
    fn a_latest_result_that_cannot_be_read_is_moved_away() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join(LATEST), "{").expect("written");
        assert_eq!(keep(dir.path(), &[]).expect("kept"), None);
        assert_eq!(fs::read_to_string(dir.path().join(PREVIOUS)).expect("moved"), "{");
    }

    #[test]
    fn only_what_exceeds_the_spreads_and_is_in_both_is_a_change() {
        let before = [entry("same", 1.0, 3.0), entry("faster", 8.0, 9.0), entry("gone", 1.0, 1.0)];
        let now = [entry("same", 2.0, 4.0), entry("faster", 5.0, 7.0), entry("new", 1.0, 1.0)];
        let changes = changes(&before, &now);
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].case.as_str(), changes[0].before, changes[0].now), ("faster", 8.5, 6.0));
    }
}
