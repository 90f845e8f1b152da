//! Which of several endpoints a key leads to, without anybody remembering it.

use std::hash::{DefaultHasher, Hash, Hasher as _};

/// The claim of an endpoint to a key: the one with the highest has it. Where an endpoint comes or goes only its own keys move, and
/// each has keys by its share (weighted rendezvous hashing).
#[must_use]
pub fn rendezvous(key: impl Hash, endpoint: impl Hash, share: f64) -> f64 {
    let mut hasher = DefaultHasher::new();
    (key, endpoint).hash(&mut hasher);
    // Above 0 and not above 1.
    let uniform = (hasher.finish() as f64 + 1.0) / (u64::MAX as f64 + 1.0);
    uniform.ln() / share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_keys_by_its_share_and_only_its_own_move() {
        const KEYS: u32 = 10_000;
        let of = |key: u32, endpoints: &[(u32, f64)]| {
            let claim = |(endpoint, share): &(u32, f64)| rendezvous(key, endpoint, *share);
            let all = endpoints.iter().max_by(|a, b| claim(a).total_cmp(&claim(b)));
            all.map(|(endpoint, _)| *endpoint)
        };
        let (both, more) = ([(1, 1.0), (2, 3.0)], [(1, 1.0), (2, 3.0), (3, 4.0)]);
        let first = (0..KEYS).filter(|key| of(*key, &both) == Some(1)).count();
        // A quarter, and more than five standard deviations (of 43) to either side.
        assert!((2250..=2750).contains(&first), "{first}");
        let moved = (0..KEYS).filter(|key| of(*key, &both) != of(*key, &more));
        assert!(moved.clone().all(|key| of(key, &more) == Some(3)));
        assert!((4700..=5300).contains(&moved.count()));
    }
}
