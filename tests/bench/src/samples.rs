//! Everything that one run measured, and what it comes to.

use crate::cases::Reading;
use crate::result::Entry;
use crate::statistics::Spread;
use crate::subjects::Subject;

/// One reading of one repeat.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    /// `<case>/<metric>`
    name: String,
    subject: Subject,
    repeat: u32,
    unit: &'static str,
    value: f64,
}

/// All readings of a run, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    samples: Vec<Sample>,
}

impl Samples {
    /// Adds what one measurement gave.
    pub(crate) fn add(&mut self, case: &str, subject: Subject, repeat: u32, readings: Vec<Reading>) {
        for Reading { metric, unit, value } in readings {
            self.samples.push(Sample { name: format!("{case}/{metric}"), subject, repeat, unit, value });
        }
    }

    /// The spread of one metric.
    pub(crate) fn spread(&self, name: &str, subject: Subject) -> Option<Spread> {
        Spread::of(self.of(name, subject).map(|sample| sample.value))
    }

    /// The spread of a combination of two metrics, each repeat with itself: what drifts between repeats drops out.
    pub(crate) fn paired(
        &self,
        first: (&str, Subject),
        second: (&str, Subject),
        combine: fn(f64, f64) -> f64,
    ) -> Option<Spread> {
        Spread::of(self.of(first.0, first.1).filter_map(|sample| {
            let other = self.of(second.0, second.1).find(|other| other.repeat == sample.repeat)?;
            Some(combine(sample.value, other.value))
        }))
    }

    /// The spread of how many times another subject's value a subject's value is.
    pub(crate) fn ratio(&self, name: &str, subject: Subject, to: Subject) -> Option<Spread> {
        self.paired((name, subject), (name, to), |value, other| value / other)
    }

    /// One entry for each metric of each subject.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for sample in &self.samples {
            let known = entries.iter().any(|entry| entry.case == sample.name && entry.subject == sample.subject);
            if let (Some(spread), false) = (self.spread(&sample.name, sample.subject), known) {
                let ratio = self.ratio(&sample.name, sample.subject, Subject::Raw).map(|ratio| ratio.median);
                entries.push(Entry::new(&sample.name, sample.subject, sample.unit, spread, ratio));
            }
        }
        entries
    }

    fn of<'a>(&'a self, name: &'a str, subject: Subject) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name && sample.subject == subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(values: &[(Subject, u32, f64)]) -> Samples {
        let mut samples = Samples::default();
        for &(subject, repeat, value) in values {
            samples.add("http-1", subject, repeat, vec![Reading { metric: "p50", unit: "us", value }]);
        }
        samples
    }

    #[test]
    fn ratios_are_of_the_same_repeat() {
        // The machine became twice as slow: the ratio stays.
        let samples = run(&[
            (Subject::Raw, 0, 10.0),
            (Subject::Mesh, 0, 30.0),
            (Subject::Raw, 1, 20.0),
            (Subject::Mesh, 1, 60.0),
        ]);
        let ratio = samples.ratio("http-1/p50", Subject::Mesh, Subject::Raw).expect("both were measured");
        assert_eq!(ratio, Spread { median: 3.0, low: 3.0, high: 3.0 });
    }

    #[test]
    fn a_repeat_without_a_partner_counts_for_no_ratio() {
        let samples = run(&[(Subject::Raw, 0, 10.0), (Subject::Mesh, 0, 20.0), (Subject::Mesh, 1, 90.0)]);
        let ratio = samples.ratio("http-1/p50", Subject::Mesh, Subject::Raw).expect("one pair");
        assert_eq!(ratio.high, 2.0);
        assert_eq!(samples.ratio("http-1/p50", Subject::Envoy, Subject::Raw), None);
    }

    #[test]
    fn each_metric_of_each_subject_is_one_entry() {
        let samples = run(&[
            (Subject::Raw, 0, 10.0),
            (Subject::Mesh, 0, 20.0),
            (Subject::Raw, 1, 12.0),
            (Subject::Mesh, 1, 24.0),
        ]);
        let entries = samples.entries();
        let said: Vec<_> =
            entries.iter().map(|it| (it.case.as_str(), it.subject, it.median, it.ratio_to_raw)).collect();
        assert_eq!(
            said,
            [("http-1/p50", Subject::Raw, 11.0, Some(1.0)), ("http-1/p50", Subject::Mesh, 22.0, Some(2.0))]
        );
    }
}
