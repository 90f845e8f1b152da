//! What people read at the end.

use std::fmt::Write as _;

use crate::figures::{Bound, Figure, Standing};
use crate::result::{Change, Entry};
use crate::samples::Samples;
use crate::statistics::Spread;
use crate::subjects::Subject;

/// Which of the metrics people want to see; the rest is in the JSON.
const DETAILS: [&str; 8] = [
    "cpu-user",
    "cpu-kernel",
    "cpu-softirq",
    "cpu-proxies-user",
    "idle-proportional",
    "connection-proportional",
    "noise",
    "core-sleeps",
];

/// All medians with their spreads, a row for each metric, a column for each subject.
pub(crate) fn measurements(samples: &Samples, subjects: &[Subject], details: bool) -> String {
    let entries = samples.entries();
    let mut header = vec!["case".to_owned(), "unit".to_owned()];
    header.extend(subjects.iter().map(|subject| subject.name().to_owned()));
    header.push("mesh/envoy".to_owned());
    let mut rows = vec![header];
    let mut seen: Vec<&str> = Vec::new();
    for entry in &entries {
        let detail = DETAILS.iter().any(|name| entry.case.ends_with(&format!("/{name}")));
        if seen.contains(&entry.case.as_str()) || detail && !details {
            continue;
        }
        seen.push(&entry.case);
        let mut row = vec![entry.case.clone(), entry.unit.clone()];
        for subject in subjects {
            let found = entries.iter().find(|it| it.case == entry.case && it.subject == *subject);
            row.push(found.map(measurement).unwrap_or_default());
        }
        let ratio = samples.ratio(&entry.case, Subject::Mesh, Subject::Envoy);
        row.push(ratio.map(|ratio| format!("{}x", number(ratio.median))).unwrap_or_default());
        rows.push(row);
    }
    aligned(&rows)
}

/// `12.3 [11.9-12.8] 0.41x`
fn measurement(entry: &Entry) -> String {
    let mut text = spread(&entry.spread());
    if let (Some(ratio), true) = (entry.ratio_to_raw, entry.subject != Subject::Raw) {
        // Writing to a string does not fail.
        let _ = write!(text, " {}x", number(ratio));
    }
    text
}

fn spread(spread: &Spread) -> String {
    let [median, low, high] = [spread.median, spread.low, spread.high].map(number);
    if low == high { median } else { format!("{median} [{low}-{high}]") }
}

/// The figures to reach, what was reached, and whether that is enough.
pub(crate) fn figures(figures: &[Figure]) -> String {
    let mut rows = vec![["figure", "target", "reached", ""].map(str::to_owned).to_vec()];
    for figure in figures {
        let sign = match figure.bound {
            Bound::AtLeast => ">=",
            Bound::MoreThan => ">",
            Bound::AtMost => "<=",
        };
        let standing = match figure.standing() {
            Standing::Met => "met",
            Standing::MetByMedian => "met by the median, not by each repeat",
            Standing::Missed => "NOT MET",
            Standing::NotMeasured => "not measured",
        };
        let reached = figure.value.map(|value| format!("{} {}", spread(&value), figure.unit)).unwrap_or_default();
        rows.push(vec![
            figure.what.to_owned(),
            format!("{sign} {} {}", number(figure.target), figure.unit),
            reached,
            standing.to_owned(),
        ]);
    }
    aligned(&rows)
}

/// What differs from the result before by more than noise.
pub(crate) fn changes(changes: &[Change]) -> String {
    let mut rows =
        vec![["case", "subject", "unit", "before", "now", "change", "ratio to raw"].map(str::to_owned).to_vec()];
    for change in changes {
        let percent = (change.now / change.before - 1.0) * 100.0;
        let ratios = change.ratios.filter(|_| change.subject != Subject::Raw);
        rows.push(vec![
            change.case.clone(),
            change.subject.name().to_owned(),
            change.unit.clone(),
            number(change.before),
            number(change.now),
            if percent.is_finite() { format!("{percent:+.0}%") } else { String::new() },
            ratios.map(|(before, now)| format!("{}x -> {}x", number(before), number(now))).unwrap_or_default(),
        ]);
    }
    aligned(&rows)
}

/// Three figures, whatever the size.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.0995 => 2,
        _ if size < 5e-5 => 2,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    if size < 9_999.5 {
        return text;
    }
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    format!("{sign}{}", groups.join(","))
}

/// Columns as wide as their widest cell.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_about_three_figures() {
        let cases = [
            (0.0, "0.00"),
            (0.0123, "0.0123"),
            (0.4056, "0.41"),
            (9.994, "9.99"),
            (12.34, "12.3"),
            (99.96, "100"),
            (9_999.4, "9999"),
            (41_234.5, "41,234"),
            (-1_234_567.0, "-1,234,567"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text, "{value}");
        }
    }

    #[test]
    fn columns_are_aligned_and_rows_have_no_trailing_blanks() {
        let rows = [vec!["a".to_owned(), "bbb".to_owned()], vec!["cc".to_owned(), String::new()]];
        assert_eq!(aligned(&rows), "a   bbb\ncc\n");
    }

    #[test]
    fn a_spread_of_one_value_is_that_value() {
        assert_eq!(spread(&Spread { median: 2.0, low: 2.0, high: 2.0 }), "2.00");
        assert_eq!(spread(&Spread { median: 2.0, low: 1.0, high: 3.0 }), "2.00 [1.00-3.00]");
    }
}
