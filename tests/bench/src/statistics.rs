//! Medians and spreads of few repeats.

use serde::{Deserialize, Serialize};

/// What repeats of one measurement came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// The middle one; the mean of the middle two of an even number.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) low: f64,
    /// The largest.
    pub(crate) high: f64,
}

impl Spread {
    /// The spread of `values`; none without any that is finite.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Self { median, low, high })
    }

    /// The tenth percentile of `values`: what something takes when nothing else gets in its way.
    pub(crate) fn undisturbed(values: impl IntoIterator<Item = f64>) -> Option<f64> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 10).copied()
    }

    /// Whether no value of the one is among those of the other: a difference that is more than noise.
    pub(crate) fn is_apart_from(&self, other: &Self) -> bool {
        self.low > other.high || self.high < other.low
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_the_mean_of_two() {
        let cases: [(&[f64], f64); 4] =
            [(&[3.0], 3.0), (&[3.0, 1.0, 2.0], 2.0), (&[4.0, 1.0, 2.0, 3.0], 2.5), (&[f64::NAN, 7.0], 7.0)];
        for (values, median) in cases {
            assert_eq!(Spread::of(values.iter().copied()).map(|it| it.median), Some(median), "{values:?}");
        }
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::INFINITY]), None);
    }

    #[test]
    fn a_few_disturbances_do_not_count() {
        let values = (1..=100).map(|it| if it % 3 == 0 { 1e6 } else { f64::from(it) });
        assert_eq!(Spread::undisturbed(values), Some(16.0));
        assert_eq!(Spread::undisturbed([5.0]), Some(5.0));
        assert_eq!(Spread::undisturbed([]), None);
    }

    #[test]
    fn spreads_that_touch_are_not_apart() {
        let spread = |low, high| Spread { median: low, low, high };
        assert!(spread(1.0, 2.0).is_apart_from(&spread(2.1, 3.0)));
        assert!(spread(2.1, 3.0).is_apart_from(&spread(1.0, 2.0)));
        assert!(!spread(1.0, 2.0).is_apart_from(&spread(2.0, 3.0)));
        assert!(!spread(1.0, 4.0).is_apart_from(&spread(2.0, 3.0)));
    }

    proptest! {
        #[test]
        fn the_median_lies_within_the_spread_whatever_the_order(mut values in prop::collection::vec(-1e9..1e9, 1..20)) {
            let spread = Spread::of(values.iter().copied()).expect("there are values");
            prop_assert!(spread.low <= spread.median && spread.median <= spread.high);
            values.reverse();
            prop_assert_eq!(Spread::of(values), Some(spread));
        }
    }
}
