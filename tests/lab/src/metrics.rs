//! Prometheus' text format, as far as tests read it.

use std::collections::BTreeMap;

/// One value of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// The series' labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Sample {
    /// Whether the series has all these labels.
    pub fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(key, value)| self.labels.get(*key).is_some_and(|own| own == value))
    }
}

/// What a scrape returned.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// The samples in order of appearance.
    pub samples: Vec<Sample>,
}

impl Metrics {
    /// Reads the text format; lines that are none are left out.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { samples: lines.filter_map(sample).collect() }
    }

    /// The samples of a metric that have all these labels.
    pub fn of<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name && sample.has(labels))
    }

    /// The sum of a metric's samples that have all these labels; 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).map(|sample| sample.value).sum()
    }
}

fn sample(line: &str) -> Option<Sample> {
    let name_end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = parse_labels(inner, &mut labels)?;
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.into(), labels, value })
}

/// Reads labels up to the closing brace and returns what follows it.
fn parse_labels<'a>(mut text: &'a str, labels: &mut BTreeMap<String, String>) -> Option<&'a str> {
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some(rest);
        }
        let (key, rest) = text.split_once("=\"")?;
        let (value, rest) = quoted(rest)?;
        labels.insert(key.trim().into(), value);
        text = rest;
    }
}

/// Reads an escaped string up to its closing quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_over_the_labels_not_asked_for() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"p\\\"q,}\"} 2\na{x=\"1\",y=\"z\"} 3.5\na{x=\"2\"} 9\nb 1 1700000000\nbroken{\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("a", &[("x", "1")]), 5.5);
        assert_eq!(metrics.sum("a", &[("y", "p\"q,}")]), 2.0);
        assert_eq!(metrics.sum("b", &[]), 1.0);
        assert_eq!(metrics.samples.len(), 4);
    }
}
