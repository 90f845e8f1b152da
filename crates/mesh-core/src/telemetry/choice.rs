//! Which of what is told has a line.

use super::Filter;
use super::filter::Attributes;
use crate::l7::Percent;

/// Which requests or connections have a line; by default all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Those that it admits; none for all.
    pub filter: Option<Filter>,
    /// Of these, the share that has one; what failed has one in any case. None for all.
    pub sampling: Option<Percent>,
}

impl Choice {
    /// Whether there is a line of it; `random` is uniform over `u64`, and one for all that choose.
    #[must_use]
    pub fn admits(&self, ended: &impl Attributes, random: u64) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.admits(ended))
            && self.sampling.is_none_or(|share| share.includes(random) || ended.failed())
    }
}
