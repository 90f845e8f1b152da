//! Parts of a cluster's endpoints, as localities divide them: which of them a request gets.

use std::rc::Rc;

use super::{balance::Wish, endpoint::Endpoint};

/// A part with so many percent of its endpoints healthy still gets all that it should (Envoy's overprovisioning factor,
/// 1.4, the other way round).
const OVERPROVISIONING: usize = 140;

/// How endpoints are divided, which lie part by part.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Where each part ends.
    ends: Vec<usize>,
    /// The parts' shares. Where there are none, the next stands in for the first as its health goes.
    shares: Vec<u32>,
}

impl Parts {
    /// By the number of each endpoint's part, in their order.
    pub(super) fn new(numbers: &[u32], shares: Vec<u32>) -> Self {
        let ends = (1..=numbers.len()).filter(|end| numbers.get(end - 1) != numbers.get(*end));
        Self { ends: ends.collect(), shares }
    }

    /// The endpoints that a request is to choose from.
    pub(super) fn choose<'a>(&self, endpoints: &'a [Rc<Endpoint>], wish: &Wish, now: u64) -> &'a [Rc<Endpoint>] {
        let Some(first) = endpoints.first().filter(|_| self.ends.len() > 1) else { return endpoints };
        let is_healthy = |endpoint: &&Rc<Endpoint>| !endpoint.state.is_left_out(now);
        let all_healthy = !first.cluster.has_left_out(now);
        let weights = self.parts(endpoints).enumerate().map(|(index, part)| {
            let healthy = if all_healthy { part.len() } else { part.iter().filter(is_healthy).count() };
            let health = (healthy * OVERPROVISIONING / part.len().max(1)).min(100);
            health as u64 * self.shares.get(index).copied().map_or(1, u64::from)
        });
        let Some(chosen) = self.by_weight(weights.collect(), wish) else { return endpoints };
        let is_fresh = |endpoint: &Rc<Endpoint>| is_healthy(&endpoint) && !wish.avoid.contains(&endpoint.address());
        let mut from_chosen = self.parts(endpoints).skip(chosen).chain(self.parts(endpoints).take(chosen));
        let fallback = from_chosen.next().unwrap_or(endpoints);
        if wish.avoid.is_empty() || fallback.iter().any(is_fresh) {
            return fallback;
        }
        // A request that was with all of them has another part's.
        from_chosen.find(|part| part.iter().any(is_fresh)).unwrap_or(fallback)
    }

    /// The number of a part; none where no part has any health.
    fn by_weight(&self, mut weights: Vec<u64>, wish: &Wish) -> Option<usize> {
        if self.shares.is_empty() {
            // All of the load, as far as the first parts can carry it.
            let mut left = 100;
            for weight in &mut weights {
                *weight = left.min(*weight);
                left -= *weight;
            }
        }
        let total: u64 = weights.iter().sum();
        if total == 0 {
            return None;
        }
        let drawn = wish.hash.unwrap_or_else(|| fastrand::u64(..));
        // No remainder: where a weight changes, most keys stay.
        let mut at = u64::try_from((u128::from(drawn) * u128::from(total)) >> 64).unwrap_or_default();
        weights.iter().position(|weight| match at.checked_sub(*weight) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        })
    }

    fn parts<'a>(&self, endpoints: &'a [Rc<Endpoint>]) -> impl Iterator<Item = &'a [Rc<Endpoint>]> {
        let mut start = 0;
        self.ends.iter().filter_map(move |end| {
            let part = endpoints.get(start..*end);
            start = *end;
            part
        })
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::l7::traffic::OutlierDetection;

    use super::*;
    use crate::upstream::{Answer, ClusterKey, SharedClusters, endpoint::EndpointKey};

    const REQUESTS: usize = 20_000;

    /// So many endpoints in each part, of which so many are ejected; the share of requests that each part gets, in percent.
    fn shares(parts: &[(u32, u8, u8)], shares: &[u32]) -> Vec<f64> {
        let clusters = SharedClusters::default();
        let state = clusters.state(&ClusterKey::Address(([10, 0, 0, 1], 80).into()));
        let rule =
            OutlierDetection { consecutive_5xx: Some(1), max_ejection_percent: 100, ..OutlierDetection::default() };
        let mut numbers = Vec::new();
        let mut endpoints = Vec::new();
        for (part, count, ejected) in parts {
            for index in 0..*count {
                let part_octet = u8::try_from(*part).expect("few");
                let key = EndpointKey::plain(([10, 1, part_octet, index], 80).into());
                let endpoint = Endpoint::new(key, None, &state);
                if index < *ejected {
                    assert!(state.note(&endpoint.state, Answer::Error, Some(&rule)));
                }
                numbers.push(*part);
                endpoints.push(endpoint);
            }
        }
        let cut = Parts::new(&numbers, shares.to_vec());
        let mut counts = vec![0_usize; parts.len()];
        for _ in 0..REQUESTS {
            let chosen = cut.choose(&endpoints, &Wish::default(), state.now());
            if chosen.len() == endpoints.len() && parts.len() > 1 {
                return vec![f64::NAN];
            }
            let std::net::IpAddr::V4(address) = chosen[0].address().ip() else { unreachable!("all are IPv4") };
            counts[usize::from(address.octets()[2])] += 1;
        }
        counts.into_iter().map(|count| count as f64 * 100.0 / REQUESTS as f64).collect()
    }

    fn check(parts: &[(u32, u8, u8)], weights: &[u32], expected: &[f64]) {
        let found = shares(parts, weights);
        // Five standard deviations of the widest share.
        let near = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1.8);
        assert!(near && found.len() == expected.len(), "{parts:?} {weights:?}: {found:?} for {expected:?}");
    }

    #[test]
    fn the_next_part_takes_what_the_first_cannot_carry() {
        check(&[(0, 10, 0), (1, 10, 0)], &[], &[100.0, 0.0]);
        // Of 70 percent the first part carries all the same.
        check(&[(0, 10, 2), (1, 10, 0)], &[], &[100.0, 0.0]);
        check(&[(0, 10, 4), (1, 10, 0)], &[], &[84.0, 16.0]);
        check(&[(0, 10, 8), (1, 10, 7), (2, 10, 0)], &[], &[28.0, 42.0, 30.0]);
        check(&[(0, 3, 3), (1, 3, 0)], &[], &[0.0, 100.0]);
        // All together carry 28 percent, and carry it in this relation.
        check(&[(0, 10, 9), (1, 10, 9)], &[], &[50.0, 50.0]);
    }

    #[test]
    fn shares_shrink_with_the_health_of_their_part() {
        check(&[(0, 1, 0), (1, 9, 0)], &[80, 20], &[80.0, 20.0]);
        check(&[(0, 10, 5), (1, 9, 0)], &[80, 20], &[73.7, 26.3]);
        check(&[(0, 2, 2), (1, 9, 0)], &[80, 20], &[0.0, 100.0]);
    }

    #[test]
    fn where_nobody_is_well_all_are_taken() {
        assert!(shares(&[(0, 2, 2), (1, 2, 2)], &[])[0].is_nan());
    }

    #[test]
    fn a_request_that_was_with_a_whole_part_goes_to_the_next() {
        let clusters = SharedClusters::default();
        let state = clusters.state(&ClusterKey::Address(([10, 0, 0, 1], 80).into()));
        let at = |index: u8| Endpoint::new(EndpointKey::plain(([10, 1, 0, index], 80).into()), None, &state);
        let endpoints = [at(0), at(1), at(2)];
        let cut = Parts::new(&[0, 1, 2], Vec::new());
        let avoid = vec![endpoints[0].address()];
        let chosen = cut.choose(&endpoints, &Wish { avoid, ..Wish::default() }, state.now());
        assert_eq!(chosen[0].address(), endpoints[1].address());
        let avoid = endpoints.iter().map(|endpoint| endpoint.address()).collect();
        let chosen = cut.choose(&endpoints, &Wish { avoid, ..Wish::default() }, state.now());
        assert_eq!(chosen[0].address(), endpoints[0].address(), "there is no other left");
    }
}
