//! Shares of requests.

use mesh_core::l7::{Backend, BackendTarget, HeaderEdits, Percent, split};
use proptest::prelude::*;

fn backends(weights: &[u32]) -> Vec<Backend> {
    let backend = |(index, weight): (usize, &u32)| Backend {
        target: BackendTarget::Service { hostname: index.to_string().into(), port: None, subset: None },
        weight: *weight,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        rewrite: Default::default(),
    };
    weights.iter().enumerate().map(backend).collect()
}

#[test]
fn nobody_is_picked_where_nobody_has_weight() {
    assert!(split::pick(&[], 0).is_none());
    assert!(split::pick(&backends(&[0]), u64::MAX).is_none());
    assert!(split::pick(&backends(&[0, 0]), u64::MAX).is_none());
}

proptest! {
    /// Over evenly spread dice, each has exactly its share, and weight 0 has none.
    #[test]
    fn shares_are_those_of_the_weights(weights in prop::collection::vec(0u32..20, 1..6)) {
        let total: u32 = weights.iter().sum();
        prop_assume!(total > 0);
        let backends = backends(&weights);
        let mut counts = vec![0u32; weights.len()];
        for slot in 0..total {
            let dice = u64::try_from((u128::from(slot) * 2 + 1) * (1u128 << 63) / u128::from(total)).expect("below 2^64");
            let picked = split::pick(&backends, dice).expect("there is weight");
            let index = backends.iter().position(|backend| std::ptr::eq(backend, picked)).expect("one of them");
            counts[index] += 1;
        }
        prop_assert_eq!(counts, weights);
    }
}

#[test]
fn a_percentage_is_a_share_of_all_dice() {
    assert!(Percent::new(-0.1).is_none() && Percent::new(100.1).is_none() && Percent::new(f64::NAN).is_none());
    let none = Percent::new(0.0).expect("in range");
    assert!(!none.includes(0) && Percent::ALL.includes(u64::MAX));
    let tenth = Percent::new(10.0).expect("in range");
    assert!(tenth.includes(u64::MAX / 10 - 1) && !tenth.includes(u64::MAX / 10 + 2));
}
