//! One of several by weight.

use super::rule::Backend;

/// One of the backends, each with the chance that its weight has among all; none where all weights are 0.
/// `random` is uniform over `u64`.
#[must_use]
pub fn pick(backends: &[Backend], random: u64) -> Option<&Backend> {
    if let [only] = backends {
        return (only.weight > 0).then_some(only);
    }
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let mut at = u64::try_from((u128::from(random) * u128::from(total)) >> 64).ok()?;
    backends.iter().find(|backend| {
        let weight = u64::from(backend.weight);
        let found = at < weight;
        at = at.saturating_sub(weight);
        found
    })
}
